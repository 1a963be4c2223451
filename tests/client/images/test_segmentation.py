"""Photographs whose ink is hard to tell from the rest."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import NoDigitError, images
from tests.client.conftest import Pixels, Sheet, assert_same_digit, likeness, page_with, photographed


def pinned(page: Sheet) -> Sheet:
    """The sheet on a cork board, whose grain is as dark as ink."""
    rng = np.random.default_rng(1)
    grain = sum(
        cv2.resize(
            rng.normal(0, 18, (side, side)).astype(np.float32), (500, 400), interpolation=cv2.INTER_CUBIC
        )
        for side in (100, 25)
    )
    board = np.asarray(110 + grain, np.float32)
    board[40:260, 230:450] = page[40:260, 230:450]
    return board


def faint(page: Sheet) -> Sheet:
    """A broad pale pen, out of focus."""
    return np.asarray(cv2.GaussianBlur(215 - 0.3 * (215 - page), (0, 0), 4), np.float32)


def in_a_tight_box(page: Sheet) -> Sheet:
    """The strokes touch the printed box that they are in."""
    return np.asarray(cv2.rectangle(page, (292, 88), (376, 205), 120, 2), np.float32)


def in_pencil(page: Sheet) -> Sheet:
    """A broad pencil, which leaves out what is low on the paper."""
    grain = cv2.resize(np.random.default_rng(1).normal(0, 1, (200, 250)), (500, 400)).astype(np.float32)
    return np.asarray(215 - 0.35 * (215 - page) * np.clip(0.75 + grain, 0, 1), np.float32)


def beside_a_shadow(page: Sheet) -> Sheet:
    """A small shadow with clear edges, some of it on the strokes."""
    shadow = cv2.fillPoly(np.ones_like(page), [np.array([[330, 170], [450, 160], [430, 330]])], 0.6)
    return np.asarray(page * cv2.GaussianBlur(shadow, (0, 0), 2))


def apart_from_a_shadow(page: Sheet) -> Sheet:
    """A shadow beside the digit, larger than it."""
    shadow = cv2.fillPoly(np.ones_like(page), [np.array([[80, 150], [200, 80], [150, 290]])], 0.6)
    return np.asarray(page * cv2.GaussianBlur(shadow, (0, 0), 2))


def highlighted(page: Sheet) -> Sheet:
    """A highlighter's stripe across the strokes."""
    stripe = cv2.line(np.ones_like(page), (120, 140), (470, 150), 0.75, 60)
    return np.asarray(page * stripe)


@pytest.mark.parametrize(
    "photograph",
    [
        pinned,
        faint,
        in_a_tight_box,
        in_pencil,
        apart_from_a_shadow,
        highlighted,
    ],
)
def test_the_digit_is_found(photograph: Any, page: Pixels, seven: Pixels) -> None:
    assert_same_digit(images.normalise(photographed(photograph(page.astype(np.float32)))), seven)


def test_nine_of_ten_digits_beside_a_shadow_are_found(digits: Any) -> None:
    sevens = digits.typical(7, 10)
    photographs = [photographed(beside_a_shadow(page_with(seven).astype(np.float32))) for seven in sevens]
    found = map(images.normalise, photographs)
    assert sum(likeness(*pair) > 0.85 for pair in zip(found, sevens, strict=True)) >= 9


def test_nothing_is_found_on_an_empty_sheet_on_a_board() -> None:
    with pytest.raises(NoDigitError):
        images.normalise(photographed(pinned(np.full((400, 500), 215, np.float32))))


def test_a_thin_drawing_that_was_cut_to_the_digit_is_read() -> None:
    zero = np.full((300, 200, 3), 255, np.uint8)
    cv2.ellipse(zero, (100, 150), (98, 148), 0, 0, 360, (0, 0, 0), 4, cv2.LINE_AA)
    found = images.normalise(zero[1:299, 1:199])
    assert found[14, 14] == 0
    assert np.count_nonzero(found[:, 14]) >= 2
