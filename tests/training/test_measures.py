import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training import measures
from digit_training.evaluate import calibration_error
from digit_training.measures import Accuracy


def answers(*confident: tuple[int, float]) -> NDArray[np.float32]:
    """Probabilities that give each digit this confidence and share the rest among the others."""
    rows = [np.full(10, (1 - confidence) / 9) for _, confidence in confident]
    for row, (digit, confidence) in zip(rows, confident, strict=True):
        row[digit] = confidence
    return np.array(rows, np.float32)


def test_confusion_counts_answers_by_digit() -> None:
    labels = np.array([4, 4, 4, 9], np.uint8)
    confusion = measures.confusion(labels, answers((4, 0.9), (9, 0.8), (9, 0.7), (9, 0.6)))
    expected = np.zeros((10, 10), int)
    expected[4, 4], expected[4, 9], expected[9, 9] = 1, 2, 1
    assert np.array_equal(confusion, expected)


def test_each_digit_that_was_asked_for_has_an_accuracy() -> None:
    confusion = np.zeros((10, 10), np.intp)
    confusion[4, 4], confusion[4, 9], confusion[9, 4] = 3, 1, 2
    assert measures.per_digit(confusion) == {4: Accuracy(3, 4), 9: Accuracy(0, 2)}
    assert Accuracy(3, 4).share == 0.75


@pytest.mark.parametrize(
    ("right", "count", "expected"),
    [(81, 263, (0.2553, 0.3662)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
)
def test_the_interval_is_wilsons(right: int, count: int, expected: tuple[float, float]) -> None:
    """The first from Newcombe (1998), table I; the others from 1.96² / (10 + 1.96²)."""
    assert Accuracy(right, count).interval == pytest.approx(expected, abs=1e-4)


def test_reliability_bins_make_up_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500).astype(np.uint8)
    probabilities = rng.dirichlet(np.full(10, 0.2), 500).astype(np.float32)
    bins = measures.reliability(labels, probabilities)
    assert sum(one.accuracy.count for one in bins) == 500
    assert all(one.low <= one.confidence <= one.high for one in bins)
    gaps = [one.accuracy.count * abs(one.confidence - one.accuracy.share) for one in bins]
    right = probabilities.argmax(axis=1) == labels
    error = calibration_error(probabilities.max(axis=1), right)
    assert sum(gaps) / 500 == pytest.approx(error, abs=1e-6)


def test_empty_bins_are_left_out() -> None:
    labels = np.array([3, 3, 3], np.uint8)
    bins = measures.reliability(labels, answers((3, 1.0), (3, 1.0), (5, 0.5)))
    assert [one.accuracy for one in bins] == [Accuracy(0, 1), Accuracy(2, 2)]
    assert [one.high for one in bins] == pytest.approx([8 / 15, 1])


def test_the_worst_mistake_is_the_most_confident() -> None:
    labels = np.array([1, 2, 3, 4], np.uint8)
    probabilities = answers((1, 0.99), (7, 0.6), (5, 0.9), (9, 0.7))
    assert measures.mistakes(labels, probabilities).tolist() == [2, 3, 1]
    assert not len(measures.mistakes(labels, answers(*((digit, 0.5) for digit in labels.tolist()))))
