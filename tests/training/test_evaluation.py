"""Evaluation: accuracy, confidence intervals, calibration and temperature."""

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_training import evaluation
from digit_training.data import Dataset
from digit_training.drawing.negatives import KINDS
from digit_training.errors import ModelError
from digit_training.evaluation import Accuracy, Evaluation, Scored, evaluate
from digit_training.fit import FitResult
from digit_training.models import IS_DIGIT, PROBABILITIES
from tests.training.conftest import predict, predict_outputs, small_network

pytestmark = pytest.mark.xdist_group("fits")


def test_evaluate_accuracy_is_the_share_of_correct_answers(fitted: FitResult, dataset: Dataset) -> None:
    evaluation = evaluate(fitted.model, dataset.test, DIGITS)
    answers = predict(fitted.model, dataset.test.pixels).argmax(axis=1)
    assert evaluation.accuracy == pytest.approx(np.mean(answers == dataset.test.labels))
    assert evaluation.probabilities.shape == (1000, 10)
    assert 0 < (evaluation.calibration_error or 0) < 1
    assert evaluation.refusals is None


def test_score_multi_label_averages_over_labels() -> None:
    task = TaskCard("scenes", ("beach", "snow"), CardInput((8, 8), (0.0, 255.0)), threshold=(0.5, 0.25))
    probabilities = np.array([[0.9, 0.25], [0.8, 0.2], [0.6, 0.1], [0.1, 0.3]], np.float32)
    labels = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    scores = evaluation.score_multi_label(probabilities, labels, task)
    # Beach: named are the first three, two of them rightly. Snow: named are the first and the last.
    assert scores.precision == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.recall == pytest.approx((2 / 2 + 1 / 2) / 2)
    # Precision at the rank of each right one. Beach: 1/1 and 2/3. Snow: 1/2 and 2/3.
    assert scores.mean_average_precision == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert evaluation.are_labels(probabilities, labels, task).tolist() == [True, False, True, False]


def test_evaluate_model_of_two_outputs_scores_digits_and_every_kind_of_negative(
    refusing: FitResult, refusing_evaluation: Evaluation, dataset: Dataset
) -> None:
    expected = predict_outputs(refusing.model, dataset.test.pixels)
    refusals = refusing_evaluation.refusals
    assert refusals
    assert np.allclose(refusing_evaluation.probabilities, expected[PROBABILITIES], atol=1e-6)
    assert np.allclose(refusals.digits.is_digit, expected[IS_DIGIT], atol=1e-6)
    assert refusals.digits.refused_share == np.mean(refusals.digits.is_digit < 0.5)
    assert list(refusals.negatives) == list(KINDS)
    assert {len(scored.images) for scored in refusals.negatives.values()} == {evaluation.NEGATIVES_PER_KIND}


def test_scored_surest_first_sorts_by_distance_from_the_threshold() -> None:
    scored = Scored(np.zeros((5, 28, 28), np.uint8), np.array([0.6, 0.1, 0.9, 0.4, 0.5], np.float32))
    assert scored.surest_first(refused=True).tolist() == [1, 3]
    assert scored.surest_first(refused=False).tolist() == [2, 0, 4]
    assert scored.refused_share == pytest.approx(0.4)


@pytest.mark.parametrize(("bias", "message"), [(2.0, "as logits do"), (float("nan"), "its fit diverged")])
def test_evaluate_what_is_no_probability_raises_model_error(
    bias: float, message: str, dataset: Dataset
) -> None:
    initializer = keras.initializers.Constant(bias)
    model = keras.Sequential([keras.Input((784,)), layers.Dense(10, bias_initializer=initializer)])
    with pytest.raises(ModelError, match=message):
        evaluate(model, dataset.test[:9], DIGITS)


def probabilities_of(*answers: tuple[int, float]) -> NDArray[np.float32]:
    """Return probabilities for answers of (digit, confidence); the other digits share the rest equally."""
    rows = [np.full(10, (1 - confidence) / 9) for _, confidence in answers]
    for row, (digit, confidence) in zip(rows, answers, strict=True):
        row[digit] = confidence
    return np.array(rows, np.float32)


def test_confusion_matrix_counts_answers_and_gives_accuracies_and_confusions() -> None:
    labels = np.array([1, 1, 1, 2, 0], np.uint8)
    answers = probabilities_of((1, 0.9), (2, 0.8), (2, 0.7), (2, 0.6), (1, 0.6))[:, :4]
    confusion = evaluation.confusion_matrix(labels, answers)
    assert confusion.tolist() == [[0, 1, 0, 0], [0, 1, 2, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    per_label = {0: Accuracy(0, 1), 1: Accuracy(1, 3), 2: Accuracy(1, 1)}
    assert evaluation.accuracy_per_label(confusion) == per_label
    assert Accuracy(3, 4).ratio == 0.75
    assert evaluation.most_confused(confusion, limit=20) == [(1, 2, 2), (0, 1, 1)]
    assert evaluation.most_confused(confusion, limit=1) == [(1, 2, 2)]


@pytest.mark.parametrize(
    ("correct", "count", "expected"),
    [(81, 263, (0.2553, 0.3662)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
)
def test_accuracy_interval_is_the_wilson_score_interval(
    correct: int, count: int, expected: tuple[float, float]
) -> None:
    # 81 of 263 is from Newcombe (1998), table I. The others follow from 1.96² / (10 + 1.96²).
    assert Accuracy(correct, count).interval == pytest.approx(expected, abs=1e-4)


def test_calibration_error_is_the_weighted_gap_between_confidence_and_accuracy_of_the_bins() -> None:
    labels = np.array([4, 5, 6, 7], np.uint8)
    probabilities = probabilities_of((4, 0.9), (0, 0.9), (6, 0.5), (7, 1.0))
    bins = evaluation.reliability_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
    assert [part.accuracy for part in bins] == [Accuracy(1, 1), Accuracy(1, 2), Accuracy(1, 1)]
    assert all(part.low <= part.confidence <= part.high for part in bins)
    # Gaps by bin: 1 - 0.5 for one of four answers, 0.9 - 0.5 for two, and 0 for one.
    assert evaluation.calibration_error(bins) == pytest.approx((0.5 + 2 * 0.4) / 4)


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


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_fit_temperature_finds_the_factor_of_overconfident_logits(factor: float) -> None:
    logits, labels = calibrated_logits(20_000)
    assert evaluation.fit_temperature(softmax(logits * factor), labels) == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("is_upper", [False, True])
def test_fit_temperature_stops_at_its_bounds(is_upper: bool) -> None:
    """Without wrong answers the best temperature is 0, and with certain ones it is infinite."""
    answers = np.tile(np.eye(10, dtype=np.float32)[3], (50, 1))
    labels = np.array([3] * 40 + [5 if is_upper else 3] * 10, np.uint8)
    answers = answers if is_upper else np.float32(0.05) + np.float32(0.5) * answers
    bound = evaluation.MAX_TEMPERATURE
    assert evaluation.fit_temperature(answers, labels) == pytest.approx(bound if is_upper else 1 / bound)


def test_fold_temperature_divides_the_logits_of_the_probabilities_alone(dataset: Dataset) -> None:
    model = small_network()
    before = predict_outputs(model, dataset.test.pixels)
    evaluation.fold_temperature(model, 0.4)
    after = predict_outputs(model, dataset.test.pixels)
    expected = softmax(np.log(before[PROBABILITIES].astype(np.float64)) / 0.4)
    assert np.allclose(after[PROBABILITIES], expected, atol=1e-5)
    assert np.array_equal(after[IS_DIGIT], before[IS_DIGIT])


@pytest.mark.parametrize("count", [1, 199, 200])
def test_fit_threshold_refuses_at_most_the_share(count: int) -> None:
    scores = np.random.default_rng(0).random(count).astype(np.float32)
    threshold = evaluation.fit_threshold(scores, 0.005)
    assert (scores < threshold).sum() == int(0.005 * count)
    assert all(
        0 < evaluation.fit_threshold(saturated, 0.005) < 1 for saturated in (0 * scores, 0 * scores + 1)
    )


@pytest.mark.parametrize("refused", [0.05, 0.97])
def test_fold_threshold_moves_the_threshold_to_one_half(refused: float, dataset: Dataset) -> None:
    model = small_network()
    before = predict_outputs(model, dataset.test.pixels)
    threshold = float(np.quantile(before[IS_DIGIT], refused))
    evaluation.fold_threshold(model, threshold)
    after = predict_outputs(model, dataset.test.pixels)
    clear = np.abs(before[IS_DIGIT] - threshold) > 1e-5
    assert np.mean(after[IS_DIGIT] < 0.5) == pytest.approx(refused, abs=0.01)
    assert np.array_equal((after[IS_DIGIT] < 0.5)[clear], (before[IS_DIGIT] < threshold)[clear])
    assert np.array_equal(after[PROBABILITIES], before[PROBABILITIES])


@pytest.mark.parametrize("count", [10, 11, 20, 30])
def test_find_renamed_names_labels_that_exchange_their_names(count: int) -> None:
    labels = np.repeat(np.arange(count), 10)
    answers = labels.copy()
    answers[:10], answers[10:20] = 1, 0
    # Two wrong answers of each, and a label that is mostly called by the name of one that is right.
    answers[[0, 1, 10, 11]] = [0, 2, 1, 2]
    answers[30:37] = 4
    assert evaluation.find_renamed(labels, answers) == [
        evaluation.Renamed(0, 1, 8, 10),
        evaluation.Renamed(1, 0, 8, 10),
    ]
    assert evaluation.find_renamed(labels, (labels + 1) % count)[-1] == evaluation.Renamed(
        count - 1, 0, 10, 10
    )
    assert evaluation.find_renamed(np.arange(count), (np.arange(count) + 1) % count) == []


def test_calibrate_finds_the_temperature_and_the_error_that_remains() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (2000, 4))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in honest])
    sharp = (honest**3 / (honest**3).sum(axis=1, keepdims=True)).astype(np.float32)
    calibration = evaluation.calibrate(sharp, labels)
    assert calibration.temperature == pytest.approx(3, rel=0.1)
    assert calibration.error < 1.5 * calibration.by_chance < 0.1
    # All answers have the same confidence, whatever is right.
    certain = np.where(np.arange(4) == labels[:, None], 1.0, 0.0).astype(np.float32)
    certain[:600] = np.roll(certain[:600], 1, axis=1)
    wrong = evaluation.calibrate(certain, labels)
    assert wrong.is_overconfident
    assert wrong.error > 0.25
