"""What the report's charts are drawn from: lines of points, and axes that place them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from digit_training.evaluation import Accuracy

TICKS = 5

STEPS = [1, 2, 5, 10]
"""Between ticks, with any power of ten: each divides 1, where an axis of accuracy ends."""


@dataclass(frozen=True)
class Axis:
    """Runs from the value `low` to the higher value `high`; `ticks` are values between them."""

    low: float
    high: float
    ticks: list[float]

    def share(self, value: float) -> float:
        """How far along the axis the value is: 0 at its begin, 1 at its end."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Curves:
    """What each epoch, from 1, came to: points of epoch and value, by the name of what it was measured on."""

    name: str
    x: Axis
    y: Axis
    lines: dict[str, list[tuple[int, float]]]


def learning(history: dict[str, list[float]]) -> list[Curves]:
    """Loss and accuracy, from Keras's history."""
    loss, accuracy = _lines(history, "loss"), _lines(history, "accuracy")
    epochs = _epochs(len(history["loss"]))
    return [
        Curves("loss", epochs, _axis(0, max(_values(loss))), loss),
        Curves("accuracy", epochs, _axis(min(*_values(accuracy), 0.99), 1), accuracy),
    ]


def accuracies(them: Iterable[Accuracy]) -> Axis:
    """An axis that holds the intervals of all of them and ends at 1."""
    return _axis(min(accuracy.interval[0] for accuracy in them), 1)


def _lines(history: dict[str, list[float]], name: str) -> dict[str, list[tuple[int, float]]]:
    """A fit may diverge after its best epoch: what is no number is left out."""
    return {
        title: [(epoch, value) for epoch, value in enumerate(history[key], 1) if math.isfinite(value)]
        for title, key in (("training", name), ("held out", f"val_{name}"))
        if key in history
    }


def _values(lines: dict[str, list[tuple[int, float]]]) -> list[float]:
    return [value for points in lines.values() for _, value in points]


def _axis(low: float, high: float) -> Axis:
    """From the round number below to the one above."""
    ticks = _ticks(MaxNLocator(TICKS, steps=STEPS), low, high)
    return Axis(ticks[0], ticks[-1], ticks)


def _epochs(epochs: int) -> Axis:
    if epochs == 1:
        return Axis(0.5, 1.5, [1])
    ticks = _ticks(MaxNLocator(TICKS, steps=STEPS, integer=True), 1, epochs)
    return Axis(1, epochs, [tick for tick in ticks if 1 <= tick <= epochs])


def _ticks(locator: MaxNLocator, low: float, high: float) -> list[float]:
    return [float(tick) for tick in locator.tick_values(low, high)]
