"""Fits a recipe to examples, on whatever backend Keras runs."""

import gc
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from digit_training import calibration, device, strokes
from digit_training.batches import STEPS_PER_EXECUTION, Batches
from digit_training.best import BestEpoch
from digit_training.blocks import by_block
from digit_training.dataset import Examples
from digit_training.interrupt import between_batches
from digit_training.recipes import Recipe

STEPS_PER_BLOCK = 375
"""Steps on a block, which Keras fetches as one batch: a small model's time goes between the steps."""


@dataclass(frozen=True)
class Fit:
    """A fitted model and how it came to be; `examples`, `drawn` and `validation_examples` are counts.

    Of the `epochs` that were fitted the model has the weights of the best, which counts from 1; `history` has
    loss and accuracy of each, under Keras's names. `temperature` was fitted to the held-out examples and is
    in the weights already; None where none were held out.
    """

    model: keras.Model
    recipe: Recipe
    seed: int
    examples: int
    drawn: int
    validation_examples: int
    epochs: int
    best_epoch: int
    history: dict[str, list[float]]
    temperature: float | None
    seconds: float
    device: str

    @property
    def complete(self) -> bool:
        """Whether it was not interrupted."""
        return self.epochs == self.recipe.epochs


def fit(
    recipe: Recipe, examples: Examples, seed: int, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Fit:
    """The same seed on the same machine gives the same model.

    Ctrl-C ends it early, with the best epoch so far; before the first has ended it raises KeyboardInterrupt.
    """
    device.make_repeatable()
    keras.utils.set_random_seed(seed)
    held, train = _split(examples, recipe.holdout, seed)
    drawn = strokes.drawn(round(recipe.drawn * len(train)), np.random.default_rng(seed))
    model = _compiled(recipe, len(train) + len(drawn))
    history, best = keras.callbacks.History(), BestEpoch()
    fed, begun = _fed(recipe, train + drawn, seed)
    started = time.perf_counter()
    with suppress(KeyboardInterrupt), between_batches() as interrupted:
        model.fit(
            **fed,
            epochs=recipe.epochs,
            validation_data=(held.pixels, held.labels) if len(held) else None,
            validation_batch_size=500,
            callbacks=[history, best, *callbacks, *begun, interrupted],
            verbose=0,
        )
    if best.ended < recipe.epochs:
        # TensorFlow's reader of the batches calls Python when it is freed: not when Python itself is ending.
        gc.collect()
    if not best.ended:
        raise KeyboardInterrupt
    best.restore()
    return Fit(
        model=model,
        recipe=recipe,
        seed=seed,
        examples=len(train),
        drawn=len(drawn),
        validation_examples=len(held),
        epochs=best.ended,
        best_epoch=best.epoch,
        history=history.history,
        temperature=_calibrate(model, held) if len(held) else None,
        seconds=time.perf_counter() - started,
        device=device.name(),
    )


def _split(examples: Examples, holdout: float, seed: int) -> tuple[Examples, Examples]:
    held = round(len(examples) * holdout)
    if not held:
        # In the order they came in, a seed makes the model that Keras's own lines make of it.
        return examples[:0], examples
    order = np.random.default_rng(seed).permutation(len(examples))
    return examples[order[:held]], examples[order[held:]]


def _compiled(recipe: Recipe, examples: int) -> keras.Model:
    steps = recipe.epochs * math.ceil(examples / recipe.batch_size)
    blocks = _in_blocks(recipe)
    # On a CPU Keras leaves XLA off, which makes convolutions slower and all that is small faster.
    xla = blocks and device.name() == "CPU"
    if xla:
        device.hush_xla()
    model = recipe.build()
    model.compile(
        optimizer=recipe.optimizer(recipe.learning_rate, steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=1 if blocks else STEPS_PER_EXECUTION,
        jit_compile=True if xla else "auto",
    )
    if blocks:
        model.train_step = by_block(model, recipe.batch_size)
    return model


def _in_blocks(recipe: Recipe) -> bool:
    """Whether Keras feeds blocks: the examples are the same in each epoch, and TensorFlow runs the loop."""
    return not recipe.augmented and keras.backend.backend() == "tensorflow"


def _fed(recipe: Recipe, train: Examples, seed: int) -> tuple[dict[str, Any], list[keras.callbacks.Callback]]:
    """What Keras's fit is fed with, and what has to be told when an epoch begins."""
    if recipe.augmented:
        batches = Batches(train, recipe.batch_size, seed, recipe.epochs - recipe.careful)
        begun = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: batches.begin(epoch))
        return {"x": batches}, [begun]
    rows = recipe.batch_size * (STEPS_PER_BLOCK if _in_blocks(recipe) else 1)
    return {"x": train.pixels, "y": train.labels, "batch_size": rows}, []


def _calibrate(model: keras.Model, held: Examples) -> float:
    temperature = calibration.temperature(model.predict(held.pixels, batch_size=500, verbose=0), held.labels)
    calibration.fold(model, temperature)
    return temperature
