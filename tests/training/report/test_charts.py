"""Geometry of charts: axes and lines."""

import math

import pytest

from digit_training.evaluation import Accuracy
from digit_training.report import charts


def test_learning_curves_with_validation_have_two_lines_each() -> None:
    history = {"loss": [1.9, 0.4], "accuracy": [0.5, 0.9], "val_loss": [1.1, 0.3], "val_accuracy": [0.7, 0.9]}
    loss, accuracy = charts.learning_curves(history)
    assert (loss.name, accuracy.name) == ("loss", "accuracy")
    assert loss.lines == {"training": [(1, 1.9), (2, 0.4)], "validation": [(1, 1.1), (2, 0.3)]}
    assert accuracy.lines["validation"] == [(1, 0.7), (2, 0.9)]
    assert (loss.y.low, loss.y.high) == (0, 2)
    assert accuracy.y.high == pytest.approx(1)
    assert loss.x.ticks == [1, 2]


def test_learning_curves_single_epoch_is_centred() -> None:
    loss, accuracy = charts.learning_curves({"loss": [0.5], "accuracy": [1.0]})
    assert [loss.x.position(x) for x in (loss.x.low, 1, loss.x.high)] == [0, 0.5, 1]
    assert loss.x.ticks == [1]
    assert list(loss.lines) == ["training"]
    assert accuracy.y.low < accuracy.y.high == pytest.approx(1)


def test_learning_curves_epoch_ticks_are_integers_within_the_fit() -> None:
    ticks = charts.learning_curves({"loss": [0.5] * 150, "accuracy": [0.5] * 150})[0].x.ticks
    assert 3 <= len(ticks) <= 6
    assert all(tick == int(tick) and 1 <= tick <= 150 for tick in ticks)


def test_learning_curves_omit_values_that_are_not_finite() -> None:
    loss, _ = charts.learning_curves({"loss": [0.5, math.nan, math.inf], "accuracy": [0.9, 0.1, 0.1]})
    assert loss.lines == {"training": [(1, 0.5)]}
    assert loss.x.high == 3


@pytest.mark.parametrize("correct", [0, 500, 999, 1000])
def test_accuracy_axis_contains_the_intervals_and_ends_at_1(correct: int) -> None:
    accuracies = [Accuracy(correct, 1000), Accuracy(1000, 1000)]
    axis = charts.accuracy_axis(accuracies)
    assert axis.low <= min(accuracy.interval[0] for accuracy in accuracies)
    assert axis.high == pytest.approx(1)
    assert 2 <= len(axis.ticks) <= 7
