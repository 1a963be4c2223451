"""What an augmented fit is fed with, batch by batch, on every backend of Keras."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from digit_training import device, evaluation, models, synthetic
from digit_training.augment import ANYBODY, CAREFUL, augment
from digit_training.callbacks import BestEpoch, between_batches
from digit_training.data import Examples
from digit_training.recipes import Recipe

STEPS_PER_EXECUTION = 25
"""Steps that are run as one call, for each of which Keras fetches a batch."""


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The examples in another order each epoch, each written anew each time.

    A batch is pixels float32 [batch size, 784], 0..1, and labels uint8 [batch size]; it depends on nothing
    but the seed, the epoch and its index, so that a thread that reads ahead changes nothing. From the epoch
    `careful_from` on, which counts from 0, they are written with more care, and where `first` is given it is
    the first so many of the examples, some of them twice.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        seed: int,
        careful_from: float = math.inf,
        first: int | None = None,
    ) -> None:
        # With one thread TensorFlow tunes its reader, and an epoch ends when the tuner next wakes up: up to
        # twice as late. With two, other backends read some batches of the first epoch twice.
        workers = 2 if keras.backend.backend() == "tensorflow" else 1
        super().__init__(workers=workers, max_queue_size=2 * STEPS_PER_EXECUTION)
        self.careful_from = careful_from
        self.first = first
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.order = self._shuffled()

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        batch = self.examples[rows]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        hand = CAREFUL if self._is_careful else ANYBODY
        return Examples(augment(batch.images, rng, hand), batch.labels).pixels, batch.labels

    def begin(self, epoch: int) -> None:
        """Before an epoch, which counts from 0.

        Keras's own calls come once too often, and while its threads are reading.
        """
        self.epoch = epoch
        self.order = self._shuffled()

    @property
    def _is_careful(self) -> bool:
        return self.epoch >= self.careful_from

    def _shuffled(self) -> NDArray[np.intp]:
        count = self.first if self.first and self._is_careful else len(self.examples)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(count)
        # Keras counts the batches of the first epoch.
        return np.resize(order, len(self.examples))


Block = tuple[Any, Any]
Logs = dict[str, Any]


def by_block(model: keras.Model, batch_size: int) -> Callable[[Block], Logs]:
    """A training step that takes a block of batches and makes the model's own step of each of them.

    A block is tensors of pixels [n, 784] and labels [n]; its last batch is what is left of it. Blocks of
    a multiple of the batch size lead to the very steps that their batches would have led to one by one.
    The model measures its accuracy and nothing else.
    """
    step = model.train_step

    def train(block: Block) -> Logs:
        pixels, labels = block
        count = ops.shape(labels)[0]
        whole, left = count // batch_size, count % batch_size

        def batch(number: Any, size: Any) -> Logs:
            first = number * batch_size
            rows = ops.slice(pixels, (first, 0), (size, pixels.shape[1]))
            logs: Logs = step((rows, ops.slice(labels, (first,), (size,))))
            return logs

        # XLA compiles the loop also for a block that is shorter than a batch, and doesn't run through it.
        size = ops.minimum(batch_size, count)
        none = {"accuracy": 0.0, "loss": 0.0}
        logs = ops.fori_loop(0, whole, lambda number, _: batch(number, size), none)
        last: Logs = ops.cond(left > 0, lambda: batch(whole, left), lambda: logs)
        return last

    return train


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
    drawn = synthetic.drawn(round(recipe.drawn * len(train)), np.random.default_rng(seed))
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
    temperature = evaluation.temperature(model.predict(held.pixels, batch_size=500, verbose=0), held.labels)
    evaluation.fold(model, temperature)
    return temperature
