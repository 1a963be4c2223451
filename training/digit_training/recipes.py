"""How each model is fitted by default."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras

from digit_training import models

FULL_TRAINING_SET = 60_000


@dataclass(frozen=True)
class Recipe:
    """A model and the settings of its fit.

    `optimizer` makes one from the learning rate and the number of steps of the whole fit; `holdout` is the
    share of the training set that is kept to choose the best epoch by and to calibrate on; `drawn` is how
    many digits of other styles are learned beside the rest, as a share of it; `augmented` has each example
    written anew in each epoch, in the last `careful` ones much as it was, and the drawn among them only where
    they are `drawn_to_the_end`; of several `networks`, each fitted from a seed of its own, all answer
    together; `more` says what else could be had.
    """

    build: Callable[[], keras.Model]
    optimizer: Callable[[float, int], keras.Optimizer]
    epochs: int
    batch_size: int
    learning_rate: float
    holdout: float = 0.0
    drawn: float = 0.0
    augmented: bool = False
    careful: int = 0
    drawn_to_the_end: bool = True
    networks: int = 1
    more: str = ""

    def adjusted(self, batch_size: int | None, learning_rate: float | None) -> "Recipe":
        """The same recipe with what the user set."""
        return replace(
            self,
            batch_size=batch_size or self.batch_size,
            learning_rate=learning_rate or self.learning_rate,
        )

    def lasting(self, epochs: int) -> "Recipe":
        """The same recipe for that many epochs."""
        return replace(self, epochs=epochs, careful=round(self.careful * epochs / self.epochs))

    def stretched(self, examples: int) -> "Recipe":
        """As many steps on few examples as the recipe makes on all of MNIST."""
        return self.lasting(round(self.epochs * FULL_TRAINING_SET / examples))


def sgd(learning_rate: float, steps: int) -> keras.Optimizer:  # noqa: ARG001
    """Plain gradient descent, as in the article."""
    return keras.optimizers.SGD(learning_rate)


def adamw(learning_rate: float, steps: int) -> keras.Optimizer:
    """AdamW whose rate warms up for a twentieth of the steps and then falls to nothing along a cosine."""
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
    holdout=1 / 12,
    drawn=0.2,
    augmented=True,
    careful=1,
    more="Some more minutes read another 30 of MNIST's 10,000 right: digits train --recipe full",
)

FULL = replace(
    QUICK,
    epochs=24,
    # Drawn digits cost some of MNIST's, which the last epochs win back.
    drawn=0.05,
    careful=6,
    more="Five networks together read another ten of MNIST's 10,000 right: digits train --recipe best",
)

RECIPES = {
    "perceptron": Recipe(models.perceptron, sgd, epochs=10, batch_size=32, learning_rate=0.01),
    "quick": QUICK,
    "full": FULL,
    # Drawings of other people it reads less well.
    "best": replace(FULL, drawn_to_the_end=False, networks=5, more=""),
}
