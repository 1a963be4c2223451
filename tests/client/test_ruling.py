from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_client import images, ruling
from tests.client.conftest import Pixels, assert_same_digit, photographed

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
    left = ruling.remove(mask, mask)
    assert (left & stroke).sum() > 0.95 * stroke.sum()
    assert (left & ~cv2.dilate(stroke, np.ones((9, 9), np.uint8))).sum() < 0.02 * stroke.sum()


def test_lines_down_go_as_well(stroke: Mask) -> None:
    squares = ruled(240, 320, 31, 0.01) | ruled(320, 240, 31, 0.01).T
    mask = stroke | squares
    left = ruling.remove(mask, mask)
    assert (left & stroke).sum() > 0.9 * stroke.sum()
    assert (left & ~cv2.dilate(stroke, np.ones((9, 9), np.uint8))).sum() < 0.05 * stroke.sum()


def test_lines_that_are_dark_in_parts_go_there(stroke: Mask) -> None:
    lines = ruled(240, 320, 31, 0.0)
    dark = lines.copy()
    dark[:, :170] = 0
    left = ruling.remove(stroke | dark, stroke | lines)
    assert (left & ~cv2.dilate(stroke, np.ones((9, 9), np.uint8))).sum() < 0.02 * stroke.sum()


def test_a_thin_stroke_is_no_printed_line() -> None:
    mask = np.zeros((240, 320), np.uint8)
    cv2.polylines(mask, [np.array([[30, 40], [290, 40], [150, 220]], np.int32)], False, 1, 2)
    assert np.array_equal(ruling.remove(mask, mask), mask)


def test_a_small_picture_has_no_printed_lines() -> None:
    mask = np.zeros((28, 28), np.uint8)
    mask[14] = 1
    assert np.array_equal(ruling.remove(mask, mask), mask)


@pytest.mark.parametrize("askew", [0, 6])
@pytest.mark.parametrize("width", [1, 4])
def test_a_digit_in_a_printed_box_is_read_without_it(
    width: int, askew: int, page: Pixels, seven: Pixels
) -> None:
    corners = np.array(
        [[238, 48], [430, 48 + askew], [430 - askew, 240], [238 - askew, 240 - askew]], np.int32
    )
    boxed = page.astype(np.float32)
    cv2.polylines(boxed, [corners], True, 90, width, cv2.LINE_AA)
    assert_same_digit(images.normalise(photographed(boxed)), seven)


def test_neither_a_loop_nor_an_empty_box_is_a_printed_box(digits: Any) -> None:
    dotted = cv2.circle(digits.one(0).copy(), (14, 14), 1, 255, -1)
    box = cv2.rectangle(np.zeros((28, 28), np.uint8), (9, 5), (18, 22), 255, 3)
    for picture in (dotted, box):
        large = cv2.resize(picture, (140, 140), interpolation=cv2.INTER_CUBIC)
        page = 230 - np.pad(large, ((30, 250), (200, 40))).astype(np.float32) / np.float32(2)
        assert_same_digit(images.normalise(photographed(page)), picture)
