"""Certainty of readings: which lines are right, and weights that say so."""

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from digit_core import images
from digit_core.artifact.task_card import DIGIT_LABELS, READER_NAME
from digit_core.reading.certainty import sigmoid
from digit_core.reading.lines import detect, find_lines
from digit_core.reading.peaks import Peaks
from digit_core.results import Prediction
from digit_training import shipped
from digit_training.data import Examples
from digit_training.finder import finder
from digit_training.reader import line_weights, pipeline
from tests.training.conftest import written_page

WRITTEN = ((1, (10, 20, 15, 30)), (2, (40, 22, 20, 30)), (4, (70, 20, 18, 30)))


def found(*digits: tuple[int, tuple[int, int, int, int]]) -> Any:
    """Return the lines of a reader and a classifier that see these digits."""
    classes = np.full((len(digits), 11), 0.01, np.float32)
    for row, (label, _) in zip(classes, digits, strict=True):
        row[label] = 0.9
    boxes = np.array([box for _, box in digits], np.float32)
    shown = images.to_page(np.full((96, 192), 200, np.uint8))
    detected = detect(shown, Peaks(np.full(len(digits), 0.95, np.float32), classes, boxes))
    rows = np.clip(np.eye(10)[[int(row[:10].argmax()) for row in detected.digits.classes]], 0.001, 0.991)
    answers = [
        Prediction(int(row.argmax()), float(row.max()), tuple(row.tolist()), DIGIT_LABELS, 1, is_digit=0.99)
        for row in rows
    ]
    return find_lines(detected, answers)


@pytest.mark.parametrize(
    ("digits", "is_right"),
    [
        (WRITTEN, True),
        (((7, WRITTEN[0][1]), *WRITTEN[1:]), False),
        (WRITTEN[:2], False),
        ((*WRITTEN, (1, (120, 20, 8, 30))), False),
    ],
    ids=["right", "misread", "missed", "extra"],
)
def test_line_is_right_with_all_digits_on_its_rows_and_no_other(digits: Any, is_right: bool) -> None:
    assert line_weights.are_right(written_page(*WRITTEN), found(*digits)) == [is_right]


def test_line_is_right_whatever_stands_on_other_rows() -> None:
    lower = [(label, (left, top + 40, width, height)) for label, (left, top, width, height) in WRITTEN]
    assert line_weights.are_right(written_page(*WRITTEN, *lower), found(*WRITTEN)) == [True]
    sign = (10, (95, 45, 4, 4))
    assert line_weights.are_right(written_page(*WRITTEN, sign), found(*WRITTEN)) == [True]


def test_fit_leaves_out_pages_that_cut_a_digit_off_or_have_none() -> None:
    cut, unreadable = written_page((1, (-3, 20, 15, 30))), written_page((-1, (40, 22, 20, 30)), *WRITTEN)
    left_out = [cut, unreadable, written_page(), written_page((10, (95, 45, 4, 4)))]
    nothing = (np.zeros(shape, np.float32) for shape in (0, (0, 11), (0, 4)))
    find = Mock(return_value=Peaks(*nothing))
    assert line_weights.fit_line_weights([*left_out, written_page(*WRITTEN)], find).count == 0
    assert find.call_count == 1


@pytest.mark.slow
def test_fit_on_drawn_pages_agrees_with_the_shipped_weights_on_a_typical_line(
    digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner's reader has weights fitted on drawn pages, the shipped one those of a benchmark."""
    monkeypatch.setattr(pipeline, "LINE_PAGES", 1000)
    monkeypatch.setattr(pipeline, "TEST_GLYPHS", 500)
    examples = Examples(digits.images, digits.labels)
    fitted = pipeline.fit_line_weights(finder(shipped.load_detector()), examples)
    card = shipped.read_card(READER_NAME)["lines"]
    assert fitted.count > 100
    assert 0.6 < fitted.right < card["right"]
    assert fitted.calibration_error < 0.1
    typical = np.array([4.0, 3.0, 0.05, 1.0, np.log(4)])
    assert sigmoid(typical @ fitted.weights) == pytest.approx(sigmoid(typical @ card["weights"]), abs=0.1)
