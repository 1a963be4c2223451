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


@pytest.fixture
def comb() -> Pixels:
    """Four open cells in a mask: uint8 [240, 320]."""
    mask = np.zeros((240, 320), np.uint8)
    cv2.line(mask, (40, 150), (280, 150), 1, 2)
    for column in range(40, 281, 60):
        cv2.line(mask, (column, 110), (column, 150), 1, 2)
    return mask


def find_all_lines(mask: Pixels) -> Pixels:
    horizontal, vertical = frames.find_lines(mask)
    return np.asarray(horizontal | vertical, np.uint8)


@pytest.mark.parametrize("angle", [0.0, 2.0, -2.0])
def test_find_lines_box_around_digit_is_found(stroke: Pixels, angle: float) -> None:
    frame = cv2.rectangle(np.zeros_like(stroke), (80, 45), (205, 160), 1, 3)
    turn = cv2.getRotationMatrix2D((140, 100), angle, 1)
    frame = cv2.warpAffine(frame, turn, frame.shape[::-1], flags=cv2.INTER_NEAREST)
    lines = find_all_lines(stroke | frame)
    assert (lines & frame).sum() > 0.9 * frame.sum()
    assert (lines & stroke).sum() < 0.02 * stroke.sum()


def test_find_lines_row_of_cells_is_found() -> None:
    table = np.zeros((240, 320), np.uint8)
    for left in (20, 90, 160, 230):
        cv2.rectangle(table, (left, 60), (left + 70, 150), 1, 2)
    lines = find_all_lines(table)
    assert (lines & table).sum() > 0.95 * table.sum()


def test_find_lines_row_of_open_cells_is_found(comb: Pixels) -> None:
    lines = find_all_lines(comb)
    assert (lines & comb).sum() > 0.95 * comb.sum()


def test_find_lines_digit_touches_open_cells_lines_are_found(comb: Pixels, stroke: Pixels) -> None:
    touching = np.roll(stroke, 12, axis=0)
    assert (comb & touching).any()
    lines = find_all_lines(comb | touching)
    assert (lines & comb).sum() > 0.9 * comb.sum()


def test_find_lines_stroke_on_underline_is_not_found() -> None:
    underline = cv2.line(np.zeros((240, 320), np.uint8), (20, 150), (300, 150), 1, 2)
    one = cv2.line(np.zeros_like(underline), (160, 90), (160, 150), 1, 4)
    horizontal, vertical = frames.find_lines(underline | one)
    assert (horizontal & underline).sum() > 0.9 * underline.sum()
    assert not vertical.any()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_remove_lines_squared_paper_strokes_stay(stroke: Pixels, share: float) -> None:
    squares = np.zeros_like(stroke)
    squares[::40], squares[:, ::40] = 1, 1
    rng = np.random.default_rng(0)
    dark = squares & (rng.random(squares.shape) >= share)
    kept = frames.remove_lines(stroke | dark, stroke | squares)
    assert (kept & stroke).sum() > 0.98 * stroke.sum()
    assert (kept & ~stroke).sum() < 0.05 * squares.sum()


@pytest.mark.parametrize("digit", range(10))
def test_find_lines_digit_is_not_found(digits: Any, digit: int) -> None:
    large = cv2.resize(digits.one(digit), (224, 224), interpolation=cv2.INTER_CUBIC)
    assert not find_all_lines((large > 100).astype(np.uint8)).any()


def test_find_lines_empty_mask_has_none() -> None:
    assert not find_all_lines(np.zeros((240, 320), np.uint8)).any()
