"""Comparison of a new model with the served version."""

from pathlib import Path

import numpy as np
import pytest

from digit_client import DIGITS
from digit_training.comparison import Comparison, compare
from digit_training.data import NO_DIGIT, Dataset, Examples, read_hard_pictures
from digit_training.errors import ModelError
from digit_training.evaluation import Evaluation, evaluate
from digit_training.fit import FitResult
from digit_training.models import IS_DIGIT, PROBABILITIES
from tests.training.conftest import COLORS, predict_outputs


def test_comparison_counts_what_each_model_alone_answers_correctly() -> None:
    right = np.array([True, True, True, False, False, True])
    served = np.array([True, False, False, True, False, False])
    comparison = Comparison("the test set", right, served)
    assert (comparison.gained, comparison.lost) == (3, 1)
    assert comparison.accuracy == pytest.approx(4 / 6)
    assert comparison.served_accuracy == pytest.approx(2 / 6)
    assert comparison.gain == pytest.approx(2 / 6)
    # At least one, and at least three of four coins show heads.
    assert comparison.chance_of_loss == pytest.approx(15 / 16)
    assert comparison.chance_of_gain == pytest.approx(5 / 16)


def test_comparison_without_served_version_has_no_gain() -> None:
    comparison = Comparison("the test set", np.array([True, False]), None)
    assert (comparison.served_accuracy, comparison.gain, comparison.chance_of_loss) == (None, 0, 1)


def test_compare_with_itself_has_equal_answers_on_all_pictures(
    published: Path, fitted: FitResult, dataset: Dataset
) -> None:
    evaluation = evaluate(fitted.model, dataset.test, DIGITS)
    held_out = dataset.train[:30]
    comparisons = compare(fitted.model, DIGITS, dataset.test, evaluation, published, held_out)
    assert comparisons.served == str(published)
    assert [len(comparison) for comparison in comparisons.all] == [1000, 30, len(read_hard_pictures())]
    assert [comparison.gained + comparison.lost for comparison in comparisons.all] == [0, 0, 0]
    assert comparisons.test.accuracy == evaluation.accuracy


def test_compare_counts_refusals_on_the_feedback(
    refusing: FitResult, refusing_evaluation: Evaluation, dataset: Dataset
) -> None:
    digits = dataset.train[:100]
    held_out = digits + Examples(digits.images, np.full(100, NO_DIGIT, np.uint8))
    comparisons = compare(refusing.model, DIGITS, dataset.test, refusing_evaluation, None, held_out)
    outputs = predict_outputs(refusing.model, digits.pixels)
    accepted = outputs[IS_DIGIT] >= 0.5
    is_label = outputs[PROBABILITIES].argmax(axis=1) == digits.labels
    assert comparisons.feedback
    assert np.array_equal(comparisons.feedback.right, np.concatenate((accepted & is_label, ~accepted)))


def test_compare_with_a_version_of_other_labels_raises_model_error(
    published: Path, fitted: FitResult, dataset: Dataset
) -> None:
    evaluation = evaluate(fitted.model, dataset.test, DIGITS)
    with pytest.raises(ModelError, match="has other labels or takes other pictures"):
        compare(fitted.model, COLORS, dataset.test, evaluation, published)
