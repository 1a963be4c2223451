"""Evaluation of the reader: right digits, wrong ones, and pages without any."""

import numpy as np
import pytest

from digit_core.reading.peaks import Peaks
from digit_training.finder import MIN_SCORE
from digit_training.reader.evaluation import MAX_FALSE_PAGES, Finds, score
from tests.training.conftest import written_page


def peaks(*found: tuple[int, tuple[int, int, int, int], float]) -> Peaks:
    classes = np.eye(11, dtype=np.float32)[[label for label, _, _ in found]].reshape(-1, 11)
    boxes = np.array([box for _, box, _ in found], np.float32).reshape(-1, 4)
    return Peaks(np.array([value for _, _, value in found], np.float32), classes, boxes)


def test_score_tells_right_from_wrong() -> None:
    written = written_page(
        (3, (10, 10, 20, 40)), (4, (60, 10, 20, 40)), (-1, (170, 10, 20, 40)), (10, (100, 40, 4, 4))
    )
    found = peaks(
        (3, (11, 11, 20, 40), 0.9),
        (7, (60, 10, 20, 40), 0.8),
        (1, (170, 10, 20, 40), 0.7),
        (1, (130, 60, 10, 30), 0.6),
        (10, (100, 40, 4, 4), 0.9),
    )
    finds = score([written], [found])
    assert finds.digits == 2
    assert finds.right.tolist() == pytest.approx([0.9])
    assert sorted(finds.wrong.tolist()) == pytest.approx([0.6, 0.8])
    assert finds.recall(0.5) == 0.5
    assert finds.recall(0.95) == 0
    assert finds.precision(0.5) == pytest.approx(1 / 3)
    assert finds.precision(0.85) == 1


def test_slope_makes_scores_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, 4000)
    is_right = rng.random(4000) < 1 / (1 + np.exp(-3 * (logits - 0.5)))
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    finds = Finds(scores[is_right], scores[~is_right], np.zeros(0, np.float32), 4000)
    assert finds.slope() == pytest.approx(3, rel=0.1)


def test_threshold_is_above_most_pages_without_a_digit() -> None:
    found = [peaks((1, (10, 10, 10, 30), 0.3 + 0.004 * number)) for number in range(100)]
    finds = score([written_page()] * 101, [*found, peaks()])
    assert (finds.empty >= finds.threshold()).mean() == pytest.approx(MAX_FALSE_PAGES, abs=0.01)
    assert score([written_page()], [peaks()]).threshold() == MIN_SCORE
