"""Fits a recipe to examples, on whatever backend Keras runs."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from digit_training import device
from digit_training.dataset import Examples
from digit_training.recipes import Recipe

STEPS_PER_EXECUTION = 25
"""Steps that are run as one call: small models spend more time between the steps than in them."""


@dataclass(frozen=True)
class Fit:
    """A fitted model and how it came to be; `examples` and `validation_examples` are counts."""

    model: keras.Model
    recipe: Recipe
    seed: int
    examples: int
    validation_examples: int
    seconds: float
    device: str


def fit(
    recipe: Recipe, examples: Examples, seed: int, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Fit:
    """The same seed on the same machine gives the same model."""
    device.make_repeatable()
    keras.utils.set_random_seed(seed)
    held, train = _split(examples, recipe.holdout, seed)
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    model = recipe.build()
    model.compile(
        optimizer=recipe.optimizer(recipe.learning_rate, steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    started = time.perf_counter()
    model.fit(
        train.pixels,
        train.labels,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(held.pixels, held.labels) if len(held) else None,
        validation_batch_size=500,
        callbacks=list(callbacks),
        verbose=0,
    )
    return Fit(model, recipe, seed, len(train), len(held), time.perf_counter() - started, device.name())


def _split(examples: Examples, holdout: float, seed: int) -> tuple[Examples, Examples]:
    order = np.random.default_rng(seed).permutation(len(examples))
    held = round(len(examples) * holdout)
    return examples[order[:held]], examples[order[held:]]
