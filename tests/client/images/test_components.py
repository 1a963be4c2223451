"""Component selection: photographs that show other objects beside a digit."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import components
from tests.client.images.pictures import FloatImage, Pixels, assert_same_digit, photograph


def add_finger(page: FloatImage) -> FloatImage:
    """A finger at the border, larger than the digit and as dark."""
    return np.asarray(cv2.ellipse(page, (100, 400), (60, 130), 15, 0, 360, 70, -1), np.float32)


def add_oblique_lines(page: FloatImage) -> FloatImage:
    """Printed lines that end at the top of the picture instead of its other side."""
    for offset in (20, 45):
        cv2.line(page, (500 - offset, 0), (499, 3 * offset), 120, 2, cv2.LINE_AA)
    return page


def add_perspective(page: FloatImage) -> FloatImage:
    """A sheet that narrows towards its top, with the table beside it."""
    corners = np.array([[0, 0], [500, 0], [500, 400], [0, 400]], np.float32)
    projected = np.array([[110, 30], [400, 25], [500, 400], [0, 390]], np.float32)
    projection = cv2.getPerspectiveTransform(corners, projected)
    return np.asarray(cv2.warpPerspective(page, projection, (500, 400), borderValue=60), np.float32)


def add_circle(page: FloatImage) -> FloatImage:
    """A circle around the digit, drawn by the same pen."""
    return np.asarray(cv2.ellipse(page, (334, 145), (125, 115), 20, 0, 360, 60, 9, cv2.LINE_AA), np.float32)


def add_underline(page: FloatImage) -> FloatImage:
    """A line under the digit, drawn by the same pen."""
    return np.asarray(cv2.line(page, (255, 248), (415, 244), 60, 9, cv2.LINE_AA), np.float32)


def add_half_box(page: FloatImage) -> FloatImage:
    """Two visible sides of a printed box."""
    corners = np.array([[238, 240], [238, 48], [430, 48]], np.int32)
    return np.asarray(cv2.polylines(page, [corners], False, 110, 3), np.float32)


@pytest.mark.parametrize(
    "add_object",
    [add_finger, add_oblique_lines, add_perspective, add_circle, add_underline, add_half_box],
)
def test_normalise_object_beside_digit_is_removed(
    add_object: Callable[[FloatImage], FloatImage], page: Pixels, seven: Pixels
) -> None:
    assert_same_digit(images.normalise(photograph(add_object(page.astype(np.float32)))), seven)


def test_normalise_stroke_cut_off_by_border_is_kept() -> None:
    # The border cuts off the upper stroke of a five.
    sheet = np.full((400, 300), 215, np.float32)
    cv2.line(sheet, (120, 57), (260, 61), 60, 14)
    curve = np.array([[110, 90], [110, 220], [230, 250], [210, 350], [60, 370]])
    cv2.polylines(sheet, [curve], False, 60, 14)
    cropped, whole = (images.normalise(photograph(part)) for part in (sheet[56:], sheet))
    assert_same_digit(cropped, whole)


@pytest.mark.parametrize("label", [0, 4, 6, 8, 9])
def test_normalise_digit_that_fills_picture_is_read(label: int, digits: Any) -> None:
    digit = digits.one(label)
    left, top, width, height = cv2.boundingRect((digit > 100).astype(np.uint8))
    large = cv2.resize(digit[top : top + height, left : left + width], None, fx=16, fy=16)
    bold = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    assert_same_digit(images.normalise(photograph(220 - bold.astype(np.float32) * 0.6)), digit)


def test_select_digit_separate_base_of_two_is_kept() -> None:
    mask = np.zeros((240, 240), np.uint8)
    cv2.polylines(mask, [np.array([[60, 60], [120, 40], [160, 80], [70, 170]], np.int32)], False, 1, 12)
    base = cv2.line(np.zeros_like(mask), (62, 195), (170, 195), 1, 12)
    assert np.array_equal(components.select_digit(mask | base, is_paper=True), mask | base)


@pytest.mark.parametrize("skew", [0, 6])
@pytest.mark.parametrize("width", [1, 4])
def test_normalise_printed_box_is_removed(width: int, skew: int, page: Pixels, seven: Pixels) -> None:
    corners = np.array([[238, 48], [430, 48 + skew], [430 - skew, 240], [238 - skew, 240 - skew]], np.int32)
    boxed = page.astype(np.float32)
    cv2.polylines(boxed, [corners], True, 90, width, cv2.LINE_AA)
    assert_same_digit(images.normalise(photograph(boxed)), seven)


def test_normalise_dotted_zero_or_empty_box_is_kept(digits: Any) -> None:
    dotted = cv2.circle(digits.one(0).copy(), (14, 14), 1, 255, -1)
    box = cv2.rectangle(np.zeros((28, 28), np.uint8), (9, 5), (18, 22), 255, 3)
    for picture in (dotted, box):
        large = cv2.resize(picture, (140, 140), interpolation=cv2.INTER_CUBIC)
        page = 230 - np.pad(large, ((30, 250), (200, 40))).astype(np.float32) / np.float32(2)
        assert_same_digit(images.normalise(photograph(page)), picture)
