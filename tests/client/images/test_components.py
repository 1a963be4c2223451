"""Photographs that show more than a digit."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import components
from tests.client.conftest import Pixels, Sheet, assert_same_digit, photographed


def thumbed(page: Sheet) -> Sheet:
    """A finger holds the sheet, larger than the digit and as dark."""
    return np.asarray(cv2.ellipse(page, (100, 400), (60, 130), 15, 0, 360, 70, -1), np.float32)


def askew(page: Sheet) -> Sheet:
    """Printed lines that leave the sheet at its top and not at its other side."""
    for place in (20, 45):
        cv2.line(page, (500 - place, 0), (499, 3 * place), 120, 2, cv2.LINE_AA)
    return page


def seen_from_below(page: Sheet) -> Sheet:
    """The sheet gets narrower towards its top, and the table shows beside it."""
    corners = np.array([[0, 0], [500, 0], [500, 400], [0, 400]], np.float32)
    laid = np.array([[110, 30], [400, 25], [500, 400], [0, 390]], np.float32)
    onto = cv2.getPerspectiveTransform(corners, laid)
    return np.asarray(cv2.warpPerspective(page, onto, (500, 400), borderValue=60), np.float32)


def circled(page: Sheet) -> Sheet:
    """The same pen drew a circle around the digit."""
    return np.asarray(cv2.ellipse(page, (334, 145), (125, 115), 20, 0, 360, 60, 9, cv2.LINE_AA), np.float32)


def underlined(page: Sheet) -> Sheet:
    """The same pen drew a line under the digit."""
    return np.asarray(cv2.line(page, (255, 248), (415, 244), 60, 9, cv2.LINE_AA), np.float32)


def half_boxed(page: Sheet) -> Sheet:
    """Of a printed box two sides came out."""
    return np.asarray(
        cv2.polylines(page, [np.array([[238, 240], [238, 48], [430, 48]], np.int32)], False, 110, 3),
        np.float32,
    )


@pytest.mark.parametrize("drawn", [thumbed, askew, seen_from_below, circled, underlined, half_boxed])
def test_what_is_beside_the_digit_is_left_out(drawn: Any, page: Pixels, seven: Pixels) -> None:
    assert_same_digit(images.normalise(photographed(drawn(page.astype(np.float32)))), seven)


def test_a_stroke_that_the_border_cuts_off_is_a_part_of_the_digit_beside_it() -> None:
    """The hat of a five."""
    sheet = np.full((400, 300), 215, np.float32)
    cv2.line(sheet, (120, 57), (260, 61), 60, 14)
    cv2.polylines(
        sheet, [np.array([[110, 90], [110, 220], [230, 250], [210, 350], [60, 370]])], False, 60, 14
    )
    cut, whole = (images.normalise(photographed(part)) for part in (sheet[56:], sheet))
    assert_same_digit(cut, whole)


@pytest.mark.parametrize("label", [0, 4, 6, 8, 9])
def test_of_a_digit_that_fills_the_picture_the_paper_is_not_taken(label: int, digits: Any) -> None:
    digit = digits.one(label)
    left, top, width, height = cv2.boundingRect((digit > 100).astype(np.uint8))
    large = cv2.resize(digit[top : top + height, left : left + width], None, fx=16, fy=16)
    bold = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    assert_same_digit(images.normalise(photographed(220 - bold.astype(np.float32) * 0.6)), digit)


def test_the_base_of_a_two_that_broke_off_is_no_line_under_it() -> None:
    mask = np.zeros((240, 240), np.uint8)
    cv2.polylines(mask, [np.array([[60, 60], [120, 40], [160, 80], [70, 170]], np.int32)], False, 1, 12)
    base = cv2.line(np.zeros_like(mask), (62, 195), (170, 195), 1, 12)
    assert np.array_equal(components.strokes(mask | base, is_paper=True), mask | base)


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
