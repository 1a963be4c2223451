"""Training recipes: for each network, the hyperparameters of its fit."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import READER_NAME
from digit_training import models

MNIST_TRAINING_EXAMPLES = 60_000

FINE_TUNING_EPOCHS = 2 / 5
"""Epochs of a fit that starts from fitted weights, as a share of the recipe's.

A third of the learning rate costs the perceptron a fifth of its gain, and gains nothing on MNIST.
"""


ONE_RECIPE = ("perceptron", READER_NAME)
"""Networks that have one recipe, and are named by `--model`."""

Overrides = Mapping[str, Any]
"""Hyperparameters of a user in place of the recipe's own: epochs, batch_size, learning_rate."""


@dataclass(frozen=True)
class FitRun:
    """Data and hyperparameters of a fit, of the classifier or of the reader."""

    recipe: str
    """Recipe of the convnet, or the name of a network that has one recipe."""
    overrides: Overrides
    seed: int
    data: Path | None = None
    """MNIST; None selects the default source."""
    report: Path | None = None
    """Folder for what the fit writes, in which an interrupted fit goes on; None selects one in `runs`."""
    from_stable: bool = False
    """True to start from the weights of the stable version."""

    @property
    def command(self) -> str:
        """Return the command of this fit, without its paths."""
        network = f"--model {self.recipe}" if self.recipe in ONE_RECIPE else f"--recipe {self.recipe}"
        options = [f"--{name.replace('_', '-')} {value}" for name, value in self.overrides.items()]
        start = ["--from stable"] * self.from_stable
        return " ".join(["digits train", network, f"--seed {self.seed}", *start, *options])


@dataclass(frozen=True)
class Recipe:
    """A network and the hyperparameters of its fit."""

    build: Callable[[], keras.Model]
    optimizer: Callable[[float, int], keras.Optimizer]
    """Factory that takes the learning rate and the number of steps of the whole fit."""
    epochs: int
    batch_size: int
    learning_rate: float
    validation_split: float = 0.0
    """Fraction of the training set held out to choose the best epoch and to calibrate."""
    synthetic_fraction: float = 0.0
    """Synthetic digits to add, as a fraction of the training set without the validation examples."""
    negative_fraction: float = 0.0
    """Negatives to add for a network with the output `is_digit`, as the same fraction."""
    augmented: bool = False
    """True to distort each example anew in each epoch."""
    mild_epochs: int = 0
    """Number of epochs with mild augmentation at the end of the fit."""

    def with_changes(self, **changes: Any) -> "Recipe":
        """Return the recipe with other hyperparameters, and the same share of mild epochs."""
        changed = replace(self, **changes)
        return replace(changed, mild_epochs=round(self.mild_epochs * changed.epochs / self.epochs))

    def fine_tuning(self) -> "Recipe":
        """Return the recipe of a fit that starts from fitted weights: shorter."""
        shorter = self.with_changes(epochs=math.ceil(self.epochs * FINE_TUNING_EPOCHS))
        return replace(shorter, mild_epochs=max(shorter.mild_epochs, min(self.mild_epochs, 1)))

    def starting_from(self, weights: Sequence[NDArray[np.float32]]) -> "Recipe":
        """Return the recipe whose network starts from these weights."""

        def build() -> keras.Model:
            model = self.build()
            model.set_weights(weights)
            return model

        return replace(self, build=build)

    def scaled_to(self, examples: int) -> "Recipe":
        """Scale the epochs, so that a fit of `examples` digits has as many steps as one of all of MNIST."""
        return self.with_changes(epochs=round(self.epochs * MNIST_TRAINING_EXAMPLES / examples))


def sgd(learning_rate: float, steps: int) -> keras.Optimizer:  # noqa: ARG001
    """Return plain stochastic gradient descent, the optimizer of the article with the perceptron."""
    return keras.optimizers.SGD(learning_rate)


def adamw(learning_rate: float, steps: int) -> keras.Optimizer:
    """Return AdamW with a linear warm-up over a twentieth of the steps and a cosine decay to 0."""
    warmup = max(1, steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 10, max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.AdamW(schedule, weight_decay=0.01)


QUICK = Recipe(
    models.convnet,
    adamw,
    epochs=5,
    batch_size=128,
    learning_rate=3e-3,
    validation_split=1 / 12,
    synthetic_fraction=0.2,
    negative_fraction=0.25,
    augmented=True,
    mild_epochs=1,
)

RECIPES = {
    "perceptron": Recipe(models.perceptron, sgd, epochs=10, batch_size=32, learning_rate=0.01),
    "quick": QUICK,
    # Synthetic digits cost accuracy on MNIST, which the mild epochs win back.
    "full": replace(QUICK, epochs=24, mild_epochs=6),
}
