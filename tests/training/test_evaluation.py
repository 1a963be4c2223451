"""Evaluation: accuracy, confidence intervals, calibration and temperature."""

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from digit_training import evaluation, models
from digit_training.data import Dataset
from digit_training.errors import ModelError
from digit_training.evaluation import Accuracy, calibration_error, evaluate
from digit_training.fit import FitResult
from tests.training.conftest import predict


def test_evaluate_accuracy_is_the_share_of_correct_answers(fitted: FitResult, dataset: Dataset) -> None:
    evaluation = evaluate(fitted.model, dataset.test)
    answers = predict(fitted.model, dataset.test.pixels).argmax(axis=1)
    assert evaluation.accuracy == pytest.approx(np.mean(answers == dataset.test.labels))
    assert evaluation.probabilities.shape == (1000, 10)
    assert 0 < evaluation.calibration_error < 1


def test_calibration_error_is_the_weighted_gap_between_confidence_and_accuracy() -> None:
    confidence = np.array([0.9, 0.9, 0.5, 1.0], np.float32)
    correct = np.array([True, False, True, True])
    # Gaps by bin: 0.9 - 0.5 for two of four answers, 1 - 0.5 for one, and 0 for one.
    assert calibration_error(confidence, correct) == pytest.approx((2 * 0.4 + 0.5) / 4)


def test_calibration_error_of_matching_confidence_is_0() -> None:
    correct = np.arange(100) < 70
    assert calibration_error(np.full(100, 0.7, np.float32), correct) == pytest.approx(0, abs=1e-6)


def test_evaluate_logits_raise_model_error(dataset: Dataset) -> None:
    model = keras.Sequential([keras.Input((784,)), layers.Dense(10)])
    with pytest.raises(ModelError, match="its last layer needs a softmax"):
        evaluate(model, dataset.test)


def test_evaluate_nan_raises_model_error(dataset: Dataset) -> None:
    bias = keras.initializers.Constant(float("nan"))
    model = keras.Sequential([keras.Input((784,)), layers.Dense(10, "softmax", bias_initializer=bias)])
    with pytest.raises(ModelError, match="its fit diverged"):
        evaluate(model, dataset.test)


def probabilities_of(*answers: tuple[int, float]) -> NDArray[np.float32]:
    """Return probabilities for answers of (digit, confidence); the other digits share the rest equally."""
    rows = [np.full(10, (1 - confidence) / 9) for _, confidence in answers]
    for row, (digit, confidence) in zip(rows, answers, strict=True):
        row[digit] = confidence
    return np.array(rows, np.float32)


def test_confusion_matrix_counts_answers_by_digit() -> None:
    labels = np.array([4, 4, 4, 9], np.uint8)
    confusion = evaluation.confusion_matrix(labels, probabilities_of((4, 0.9), (9, 0.8), (9, 0.7), (9, 0.6)))
    expected = np.zeros((10, 10), int)
    expected[4, 4], expected[4, 9], expected[9, 9] = 1, 2, 1
    assert np.array_equal(confusion, expected)


def test_accuracy_per_digit_covers_digits_with_examples() -> None:
    confusion = np.zeros((10, 10), np.intp)
    confusion[4, 4], confusion[4, 9], confusion[9, 4] = 3, 1, 2
    assert evaluation.accuracy_per_digit(confusion) == {4: Accuracy(3, 4), 9: Accuracy(0, 2)}
    assert Accuracy(3, 4).ratio == 0.75


@pytest.mark.parametrize(
    ("correct", "count", "expected"),
    [(81, 263, (0.2553, 0.3662)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
)
def test_accuracy_interval_is_the_wilson_score_interval(
    correct: int, count: int, expected: tuple[float, float]
) -> None:
    # 81 of 263 is from Newcombe (1998), table I. The others follow from 1.96² / (10 + 1.96²).
    assert Accuracy(correct, count).interval == pytest.approx(expected, abs=1e-4)


def test_reliability_bins_sum_to_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500).astype(np.uint8)
    probabilities = rng.dirichlet(np.full(10, 0.2), 500).astype(np.float32)
    bins = evaluation.reliability_bins(labels, probabilities)
    assert sum(one.accuracy.count for one in bins) == 500
    assert all(one.low <= one.confidence <= one.high for one in bins)
    gaps = [one.accuracy.count * abs(one.confidence - one.accuracy.ratio) for one in bins]
    correct = probabilities.argmax(axis=1) == labels
    error = calibration_error(probabilities.max(axis=1), correct)
    assert sum(gaps) / 500 == pytest.approx(error, abs=1e-6)


def test_reliability_bins_omit_empty_bins() -> None:
    labels = np.array([3, 3, 3], np.uint8)
    bins = evaluation.reliability_bins(labels, probabilities_of((3, 1.0), (3, 1.0), (5, 0.5)))
    assert [one.accuracy for one in bins] == [Accuracy(0, 1), Accuracy(2, 2)]
    assert [one.high for one in bins] == pytest.approx([8 / 15, 1])


def test_worst_mistakes_are_sorted_by_confidence() -> None:
    labels = np.array([1, 2, 3, 4], np.uint8)
    probabilities = probabilities_of((1, 0.99), (7, 0.6), (5, 0.9), (9, 0.7))
    assert evaluation.worst_mistakes(labels, probabilities).tolist() == [2, 3, 1]
    all_correct = probabilities_of(*((digit, 0.5) for digit in labels.tolist()))
    assert not len(evaluation.worst_mistakes(labels, all_correct))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def calibrated_logits(examples: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return random logits, and labels drawn with their probabilities."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((examples, 10))
    labels = (softmax(logits).cumsum(axis=1) > rng.random((examples, 1))).argmax(axis=1)
    return logits, labels.astype(np.uint8)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_fit_temperature_finds_the_factor_of_overconfident_logits(factor: float) -> None:
    logits, labels = calibrated_logits(20_000)
    assert evaluation.fit_temperature(softmax(logits * factor), labels) == pytest.approx(factor, rel=0.03)


def test_fit_temperature_without_errors_stops_at_the_lower_bound() -> None:
    answers = np.full((50, 10), 0.05, np.float32) + 0.5 * np.eye(10, dtype=np.float32)[3]
    labels = np.full(50, 3, np.uint8)
    assert evaluation.fit_temperature(answers, labels) == pytest.approx(1 / evaluation.MAX_TEMPERATURE)


def test_fit_temperature_with_zero_probabilities_stops_at_the_upper_bound() -> None:
    answers = np.tile(np.eye(10, dtype=np.float32)[3], (50, 1))
    labels = np.array([3] * 40 + [5] * 10, np.uint8)
    assert evaluation.fit_temperature(answers, labels) == pytest.approx(evaluation.MAX_TEMPERATURE)


def test_fold_temperature_divides_the_logits(dataset: Dataset) -> None:
    model = models.perceptron()
    before = evaluate(model, dataset.test).probabilities
    evaluation.fold_temperature(model, 0.4)
    after = evaluate(model, dataset.test).probabilities
    assert np.allclose(after, softmax(np.log(before.astype(np.float64)) / 0.4), atol=1e-5)
