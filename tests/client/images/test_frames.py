"""Printed lines: boxes, tables and rules are found, strokes of digits are not."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client.images import frames
from tests.client.images.pictures import Pixels


@pytest.fixture
def stroke(seven: Pixels) -> Pixels:
    """Strokes of a seven in a mask: uint8 [240, 320]."""
    mask = np.zeros((240, 320), np.uint8)
    large = cv2.resize(seven, (84, 84), interpolation=cv2.INTER_CUBIC) > 100
    mask[60:144, 100:184] = large
    return mask


@pytest.mark.parametrize("angle", [0.0, 2.0, -2.0])
def test_find_lines_box_around_digit_is_found(stroke: Pixels, angle: float) -> None:
    frame = cv2.rectangle(np.zeros_like(stroke), (80, 45), (205, 160), 1, 3)
    turn = cv2.getRotationMatrix2D((140, 100), angle, 1)
    frame = cv2.warpAffine(frame, turn, frame.shape[::-1], flags=cv2.INTER_NEAREST)
    lines = frames.find_lines(stroke | frame)
    assert (lines & frame).sum() > 0.9 * frame.sum()
    assert (lines & stroke).sum() < 0.02 * stroke.sum()


def test_find_lines_row_of_cells_is_found(stroke: Pixels) -> None:
    table = np.zeros_like(stroke)
    for left in (20, 90, 160, 230):
        cv2.rectangle(table, (left, 60), (left + 70, 150), 1, 2)
    lines = frames.find_lines(table)
    assert (lines & table).sum() > 0.95 * table.sum()


def test_find_lines_row_of_open_cells_is_found(stroke: Pixels) -> None:
    comb = cv2.line(np.zeros_like(stroke), (40, 150), (280, 150), 1, 2)
    for column in range(40, 281, 60):
        cv2.line(comb, (column, 110), (column, 150), 1, 2)
    lines = frames.find_lines(comb)
    assert (lines & comb).sum() > 0.95 * comb.sum()


def test_find_lines_thick_rule_at_edge_is_found(stroke: Pixels) -> None:
    rule = cv2.line(np.zeros_like(stroke), (0, 200), (319, 203), 1, 8)
    lines = frames.find_lines(stroke | rule)
    assert (lines & rule).sum() > 0.9 * rule.sum()
    assert not (lines & stroke).any()


@pytest.mark.parametrize("digit", range(10))
def test_find_lines_digit_is_not_found(digits: Any, digit: int) -> None:
    large = cv2.resize(digits.one(digit), (224, 224), interpolation=cv2.INTER_CUBIC)
    assert not frames.find_lines((large > 100).astype(np.uint8)).any()


def test_find_lines_empty_mask_has_none() -> None:
    assert not frames.find_lines(np.zeros((240, 320), np.uint8)).any()
