import math

import pytest

from digit_training.evaluation import Accuracy
from digit_training.report import charts
from digit_training.report.charts import Axis


def test_an_axis_places_values() -> None:
    axis = Axis(0.5, 1.0, [0.5, 1.0])
    assert [axis.share(value) for value in (0.5, 0.75, 1.0)] == [0, 0.5, 1]


def test_each_kind_of_examples_has_a_line() -> None:
    history = {"loss": [1.9, 0.4], "accuracy": [0.5, 0.9], "val_loss": [1.1, 0.3], "val_accuracy": [0.7, 0.9]}
    loss, accuracy = charts.learning(history)
    assert (loss.name, accuracy.name) == ("loss", "accuracy")
    assert loss.lines == {"training": [(1, 1.9), (2, 0.4)], "held out": [(1, 1.1), (2, 0.3)]}
    assert accuracy.lines["held out"] == [(1, 0.7), (2, 0.9)]
    assert (loss.y.low, loss.y.high) == (0, 2)
    assert accuracy.y.high == pytest.approx(1)
    assert loss.x.ticks == [1, 2]


def test_one_epoch_is_in_the_middle() -> None:
    loss, accuracy = charts.learning({"loss": [0.5], "accuracy": [1.0]})
    assert loss.x.share(1) == 0.5
    assert loss.x.ticks == [1]
    assert list(loss.lines) == ["training"]
    assert accuracy.y.low < accuracy.y.high == pytest.approx(1)


def test_epochs_are_whole_and_within_the_fit() -> None:
    ticks = charts.learning({"loss": [0.5] * 150, "accuracy": [0.5] * 150})[0].x.ticks
    assert 3 <= len(ticks) <= 6
    assert all(tick == int(tick) and 1 <= tick <= 150 for tick in ticks)


def test_an_epoch_that_diverged_is_left_out() -> None:
    loss, _ = charts.learning({"loss": [0.5, math.nan, math.inf], "accuracy": [0.9, 0.1, 0.1]})
    assert loss.lines == {"training": [(1, 0.5)]}
    assert loss.x.high == 3


@pytest.mark.parametrize("right", range(0, 1001, 50))
def test_accuracies_have_room_for_their_intervals_and_end_at_1(right: int) -> None:
    them = [Accuracy(right, 1000), Accuracy(1000, 1000)]
    axis = charts.accuracies(them)
    assert axis.low <= min(accuracy.interval[0] for accuracy in them)
    assert axis.high == pytest.approx(1)
    assert 2 <= len(axis.ticks) <= 7
