import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_client.images import line_removal

Mask = NDArray[np.uint8]


def ruled(height: int, width: int, gap: int, lean: float) -> Mask:
    mask = np.zeros((height, width), np.uint8)
    for row in range(gap, height, gap):
        cv2.line(mask, (0, row), (width - 1, int(row + lean * width)), 1, 2)
    return mask


@pytest.fixture
def stroke() -> Mask:
    """A slanted stroke with a bar on top, as in a 7, ten pixels wide."""
    mask = np.zeros((240, 320), np.uint8)
    points = np.array([[100, 60], [200, 60], [140, 200]], np.int32)
    cv2.polylines(mask, [points], False, 1, 10)
    return mask


@pytest.mark.parametrize("lean", [0.0, 0.03, -0.03])
def test_lines_across_go_and_the_stroke_stays(stroke: Mask, lean: float) -> None:
    mask = stroke | ruled(240, 320, 31, lean)
    left = line_removal.remove(mask, mask)
    assert (left & stroke).sum() > 0.95 * stroke.sum()
    assert (left & ~cv2.dilate(stroke, np.ones((9, 9), np.uint8))).sum() < 0.02 * stroke.sum()


def test_lines_down_go_as_well(stroke: Mask) -> None:
    squares = ruled(240, 320, 31, 0.01) | ruled(320, 240, 31, 0.01).T
    mask = stroke | squares
    left = line_removal.remove(mask, mask)
    assert (left & stroke).sum() > 0.9 * stroke.sum()
    assert (left & ~cv2.dilate(stroke, np.ones((9, 9), np.uint8))).sum() < 0.05 * stroke.sum()


def test_lines_that_are_dark_in_parts_go_there(stroke: Mask) -> None:
    lines = ruled(240, 320, 31, 0.0)
    dark = lines.copy()
    dark[:, :170] = 0
    left = line_removal.remove(stroke | dark, stroke | lines)
    assert (left & ~cv2.dilate(stroke, np.ones((9, 9), np.uint8))).sum() < 0.02 * stroke.sum()


def test_a_thin_stroke_is_no_printed_line() -> None:
    mask = np.zeros((240, 320), np.uint8)
    cv2.polylines(mask, [np.array([[30, 40], [290, 40], [150, 220]], np.int32)], False, 1, 2)
    assert np.array_equal(line_removal.remove(mask, mask), mask)


def test_a_small_picture_has_no_printed_lines() -> None:
    mask = np.zeros((28, 28), np.uint8)
    mask[14] = 1
    assert np.array_equal(line_removal.remove(mask, mask), mask)
