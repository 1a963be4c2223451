"""."""

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from digit_training import evaluation
from digit_training.data import Dataset
from digit_training.errors import ModelError
from digit_training.evaluation import Accuracy, calibration_error, evaluate
from digit_training.fit import Fit, fit
from digit_training.recipes import RECIPES


def test_accuracy_counts_the_right_answers(fitted: Fit, dataset: Dataset) -> None:
    evaluation = evaluate(fitted.model, dataset.test)
    answers = fitted.model.predict(dataset.test.pixels, verbose=0).argmax(axis=1)
    assert evaluation.accuracy == pytest.approx(np.mean(answers == dataset.test.labels))
    assert evaluation.probabilities.shape == (1000, 10)
    assert 0 < evaluation.calibration_error < 1


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    confidence = np.array([0.9, 0.9, 0.5, 1.0], np.float32)
    right = np.array([True, False, True, True])
    # 0.9 and 0.9 are half right: a gap of 0.4 for two of four; 0.5 is right: 0.5 for one; 1.0 is right: none.
    assert calibration_error(confidence, right) == pytest.approx((2 * 0.4 + 0.5) / 4)


def test_honest_confidence_has_no_calibration_error() -> None:
    right = np.arange(100) < 70
    assert calibration_error(np.full(100, 0.7, np.float32), right) == pytest.approx(0, abs=1e-6)


def test_logits_are_refused(dataset: Dataset) -> None:
    model = keras.Sequential([keras.Input((784,)), layers.Dense(10)])
    with pytest.raises(ModelError, match="end it with a softmax"):
        evaluate(model, dataset.test)


def test_a_fit_that_diverged_is_refused(dataset: Dataset) -> None:
    bias = keras.initializers.Constant(float("nan"))
    model = keras.Sequential([keras.Input((784,)), layers.Dense(10, "softmax", bias_initializer=bias)])
    with pytest.raises(ModelError, match="its fit diverged"):
        evaluate(model, dataset.test)


def answers(*confident: tuple[int, float]) -> NDArray[np.float32]:
    """Probabilities that give each digit this confidence and share the rest among the others."""
    rows = [np.full(10, (1 - confidence) / 9) for _, confidence in confident]
    for row, (digit, confidence) in zip(rows, confident, strict=True):
        row[digit] = confidence
    return np.array(rows, np.float32)


def test_confusion_counts_answers_by_digit() -> None:
    labels = np.array([4, 4, 4, 9], np.uint8)
    confusion = evaluation.confusion_matrix(labels, answers((4, 0.9), (9, 0.8), (9, 0.7), (9, 0.6)))
    expected = np.zeros((10, 10), int)
    expected[4, 4], expected[4, 9], expected[9, 9] = 1, 2, 1
    assert np.array_equal(confusion, expected)


def test_each_digit_that_was_asked_for_has_an_accuracy() -> None:
    confusion = np.zeros((10, 10), np.intp)
    confusion[4, 4], confusion[4, 9], confusion[9, 4] = 3, 1, 2
    assert evaluation.accuracy_per_digit(confusion) == {4: Accuracy(3, 4), 9: Accuracy(0, 2)}
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
    bins = evaluation.reliability_bins(labels, probabilities)
    assert sum(one.accuracy.count for one in bins) == 500
    assert all(one.low <= one.confidence <= one.high for one in bins)
    gaps = [one.accuracy.count * abs(one.confidence - one.accuracy.share) for one in bins]
    right = probabilities.argmax(axis=1) == labels
    error = calibration_error(probabilities.max(axis=1), right)
    assert sum(gaps) / 500 == pytest.approx(error, abs=1e-6)


def test_empty_bins_are_left_out() -> None:
    labels = np.array([3, 3, 3], np.uint8)
    bins = evaluation.reliability_bins(labels, answers((3, 1.0), (3, 1.0), (5, 0.5)))
    assert [one.accuracy for one in bins] == [Accuracy(0, 1), Accuracy(2, 2)]
    assert [one.high for one in bins] == pytest.approx([8 / 15, 1])


def test_the_worst_mistake_is_the_most_confident() -> None:
    labels = np.array([1, 2, 3, 4], np.uint8)
    probabilities = answers((1, 0.99), (7, 0.6), (5, 0.9), (9, 0.7))
    assert evaluation.worst_mistakes(labels, probabilities).tolist() == [2, 3, 1]
    assert not len(evaluation.worst_mistakes(labels, answers(*((digit, 0.5) for digit in labels.tolist()))))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def honest(examples: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Logits, and labels that were drawn with the probabilities that they give."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((examples, 10))
    labels = (softmax(logits).cumsum(axis=1) > rng.random((examples, 1))).argmax(axis=1)
    return logits, labels.astype(np.uint8)


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_it_finds_how_much_too_sure_a_model_is(heat: float) -> None:
    logits, labels = honest(20_000)
    assert evaluation.temperature(softmax(logits * heat), labels) == pytest.approx(heat, rel=0.03)


def test_digits_that_are_all_read_right_do_not_make_it_certain() -> None:
    answers = np.full((50, 10), 0.05, np.float32) + 0.5 * np.eye(10, dtype=np.float32)[3]
    labels = np.full(50, 3, np.uint8)
    assert evaluation.temperature(answers, labels) == pytest.approx(1 / evaluation.LIMIT)


def test_an_answer_of_nothing_is_no_error() -> None:
    answers = np.tile(np.eye(10, dtype=np.float32)[3], (50, 1))
    labels = np.array([3] * 40 + [5] * 10, np.uint8)
    assert evaluation.temperature(answers, labels) == pytest.approx(evaluation.LIMIT)


def test_folded_into_the_weights_it_divides_the_logits(dataset: Dataset) -> None:
    model = fit(RECIPES["perceptron"].lasting(1), dataset.train[:600], seed=0).model
    before = evaluate(model, dataset.test).probabilities
    evaluation.fold(model, 0.4)
    after = evaluate(model, dataset.test).probabilities
    assert np.allclose(after, softmax(np.log(before.astype(np.float64)) / 0.4), atol=1e-5)
