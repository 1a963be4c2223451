"""Line removal: printed lines are removed from a mask, strokes stay."""

import cv2
import numpy as np
import pytest

from digit_client.images import line_removal
from tests.client.images.pictures import Pixels


@pytest.fixture
def stroke() -> Pixels:
    """An oblique stroke with a bar on top, as in a seven, ten pixels wide: uint8 [240, 320]."""
    mask = np.zeros((240, 320), np.uint8)
    points = np.array([[100, 60], [200, 60], [140, 200]], np.int32)
    cv2.polylines(mask, [points], False, 1, 10)
    return mask


def horizontal_lines(height: int, width: int, slope: float) -> Pixels:
    mask = np.zeros((height, width), np.uint8)
    for row in range(31, height, 31):
        cv2.line(mask, (0, row), (width - 1, int(row + slope * width)), 1, 2)
    return mask


def count_remains(found: Pixels, stroke: Pixels) -> int:
    """Return the number of pixels further than four pixels away from the stroke."""
    return int((found & ~cv2.dilate(stroke, np.ones((9, 9), np.uint8))).sum())


@pytest.mark.parametrize("slope", [0.0, 0.03, -0.03])
def test_remove_lines_horizontal_lines_are_removed(stroke: Pixels, slope: float) -> None:
    mask = stroke | horizontal_lines(240, 320, slope)
    found = line_removal.remove_lines(mask, mask)
    assert (found & stroke).sum() > 0.95 * stroke.sum()
    assert count_remains(found, stroke) < 0.02 * stroke.sum()


def test_remove_lines_squared_paper_is_removed(stroke: Pixels) -> None:
    mask = stroke | horizontal_lines(240, 320, 0.01) | horizontal_lines(320, 240, 0.01).T
    found = line_removal.remove_lines(mask, mask)
    assert (found & stroke).sum() > 0.9 * stroke.sum()
    assert count_remains(found, stroke) < 0.05 * stroke.sum()


def test_remove_lines_partly_dark_lines_are_removed(stroke: Pixels) -> None:
    lines = horizontal_lines(240, 320, 0.0)
    dark = lines.copy()
    dark[:, :170] = 0
    found = line_removal.remove_lines(stroke | dark, stroke | lines)
    assert count_remains(found, stroke) < 0.02 * stroke.sum()


def test_remove_lines_thin_stroke_is_kept() -> None:
    mask = np.zeros((240, 320), np.uint8)
    cv2.polylines(mask, [np.array([[30, 40], [290, 40], [150, 220]], np.int32)], False, 1, 2)
    assert np.array_equal(line_removal.remove_lines(mask, mask), mask)


def test_remove_lines_small_picture_is_kept() -> None:
    mask = np.zeros((28, 28), np.uint8)
    mask[14] = 1
    assert np.array_equal(line_removal.remove_lines(mask, mask), mask)
