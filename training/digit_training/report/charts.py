"""Geometry of the report's SVG charts: axes, ticks and lines."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from digit_training.evaluation import Accuracy

MAX_INTERVALS = 5
"""Most intervals between the ticks of an axis."""

TICK_STEPS = [1, 2, 5, 10]
"""Allowed distances between ticks, times a power of ten. All divide 1: an accuracy axis has a tick at 1."""

Lines = dict[str, list[tuple[int, float]]]
"""Points (epoch from 1, value) by "training" and "validation"."""


@dataclass(frozen=True)
class Axis:
    """Axis from `low` to `high`, with the values of the ticks between them."""

    low: float
    high: float
    ticks: list[float]

    def position(self, value: float) -> float:
        """Return the value's position along the axis: 0 at its start, 1 at its end."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Curves:
    """A metric by epoch: a line for training and, if the fit had validation examples, one for validation."""

    name: str
    x: Axis
    y: Axis
    lines: Lines


def learning_curves(history: dict[str, list[float]]) -> list[Curves]:
    """Return the curves of loss and accuracy from Keras's history."""
    loss, accuracy = _lines(history, "loss"), _lines(history, "accuracy")
    epochs = _epoch_axis(len(history["loss"]))
    # The bound of 0.99 keeps the axis from being empty if all accuracies are 1.
    return [
        Curves("loss", epochs, _value_axis(0, max(_values(loss))), loss),
        Curves("accuracy", epochs, _value_axis(min(*_values(accuracy), 0.99), 1), accuracy),
    ]


def accuracy_axis(accuracies: Iterable[Accuracy]) -> Axis:
    """Return an axis that contains all confidence intervals and ends at 1."""
    return _value_axis(min(accuracy.interval[0] for accuracy in accuracies), 1)


def _lines(history: dict[str, list[float]], name: str) -> Lines:
    """Return the metric's lines without NaN and infinity: a fit may diverge after its best epoch."""
    return {
        title: [(epoch, value) for epoch, value in enumerate(history[key], 1) if math.isfinite(value)]
        for title, key in (("training", name), ("validation", f"val_{name}"))
        if key in history
    }


def _values(lines: Lines) -> list[float]:
    return [value for points in lines.values() for _, value in points]


def _value_axis(low: float, high: float) -> Axis:
    """Return an axis from a tick at or below `low` to a tick at or above `high`."""
    ticks = _ticks(MaxNLocator(MAX_INTERVALS, steps=TICK_STEPS), low, high)
    return Axis(ticks[0], ticks[-1], ticks)


def _epoch_axis(epochs: int) -> Axis:
    if epochs == 1:
        return Axis(0.5, 1.5, [1])
    ticks = _ticks(MaxNLocator(MAX_INTERVALS, steps=TICK_STEPS, integer=True), 1, epochs)
    return Axis(1, epochs, [tick for tick in ticks if 1 <= tick <= epochs])


def _ticks(locator: MaxNLocator, low: float, high: float) -> list[float]:
    return [float(tick) for tick in locator.tick_values(low, high)]
