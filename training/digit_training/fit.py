"""Fits a recipe to examples, on whatever backend Keras runs."""

import gc
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from digit_training import calibration, device, models, strokes
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
    in the weights already; None where none were held out. Where the model is several `networks`, these four
    are of the first, and `seconds` is the time of all.
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
    networks: int = 1

    @property
    def complete(self) -> bool:
        """Whether it was not interrupted."""
        return (self.epochs, self.networks) == (self.recipe.epochs, self.recipe.networks)

    @property
    def extent(self) -> str:
        """How much was fitted of what the recipe has."""
        if self.recipe.networks > 1 and self.epochs == self.recipe.epochs:
            return f"{self.networks} of {self.recipe.networks} networks"
        return f"{self.epochs} of {self.recipe.epochs} epochs"


def fit(
    recipe: Recipe, examples: Examples, seed: int, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Fit:
    """The same seed on the same machine gives the same model.

    The first network has this seed, each other one the next. Ctrl-C ends it early, with the networks that
    were complete, or else the best epoch of the first; before the first epoch has ended it raises
    KeyboardInterrupt.
    """
    fits = [_fit(recipe, examples, seed, callbacks)]
    with suppress(KeyboardInterrupt):
        while len(fits) < recipe.networks and fits[-1].epochs == recipe.epochs:
            # There are as many seeds for NumPy.
            fits.append(_fit(recipe, examples, (seed + len(fits)) % 2**32, callbacks))
    whole = [each for each in fits if each.epochs == recipe.epochs]
    if len(whole) < 2:
        return fits[0]
    return replace(
        fits[0],
        model=models.together([each.model for each in whole]),
        networks=len(whole),
        seconds=sum(each.seconds for each in fits),
    )


def _fit(recipe: Recipe, examples: Examples, seed: int, callbacks: Sequence[keras.callbacks.Callback]) -> Fit:
    """A single network. Raises KeyboardInterrupt before an epoch has ended."""
    device.make_repeatable()
    keras.utils.set_random_seed(seed)
    held, train = _split(examples, recipe.holdout, seed)
    drawn = strokes.drawn(round(recipe.drawn * len(train)), np.random.default_rng(seed))
    model = _compiled(recipe, len(train) + len(drawn))
    history, best = keras.callbacks.History(), BestEpoch()
    fed, begun = _fed(recipe, train, drawn, seed)
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


def _fed(
    recipe: Recipe, train: Examples, drawn: Examples, seed: int
) -> tuple[dict[str, Any], list[keras.callbacks.Callback]]:
    """What Keras's fit is fed with, and what has to be told when an epoch begins."""
    learned = train + drawn
    if recipe.augmented:
        first = None if recipe.drawn_to_the_end else len(train)
        batches = Batches(learned, recipe.batch_size, seed, recipe.epochs - recipe.careful, first)
        begun = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: batches.begin(epoch))
        return {"x": batches}, [begun]
    rows = recipe.batch_size * (STEPS_PER_BLOCK if _in_blocks(recipe) else 1)
    return {"x": learned.pixels, "y": learned.labels, "batch_size": rows}, []


def _calibrate(model: keras.Model, held: Examples) -> float:
    temperature = calibration.temperature(model.predict(held.pixels, batch_size=500, verbose=0), held.labels)
    calibration.fold(model, temperature)
    return temperature
