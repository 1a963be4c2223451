"""Segmentation of photographs on which other structures resemble the ink."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from tests.client.images.pictures import (
    MIN_SIMILARITY,
    FloatImage,
    Pixels,
    assert_same_digit,
    draw_page,
    photograph,
    similarity,
)


def on_cork_board(page: FloatImage) -> FloatImage:
    """A sheet on a cork board, whose grain is as dark as ink."""
    rng = np.random.default_rng(1)
    noises = [rng.normal(0, 18, (side, side)).astype(np.float32) for side in (100, 25)]
    grain = sum(cv2.resize(noise, (500, 400), interpolation=cv2.INTER_CUBIC) for noise in noises)
    board = np.asarray(110 + grain, np.float32)
    board[40:260, 230:450] = page[40:260, 230:450]
    return board


def faint_and_blurred(page: FloatImage) -> FloatImage:
    return np.asarray(cv2.GaussianBlur(215 - 0.3 * (215 - page), (0, 0), 4), np.float32)


def in_touching_box(page: FloatImage) -> FloatImage:
    """Strokes that touch the printed box around them."""
    return np.asarray(cv2.rectangle(page, (292, 88), (376, 205), 120, 2), np.float32)


def in_pencil(page: FloatImage) -> FloatImage:
    """Broad pencil strokes with gaps in the paper's hollows."""
    grain = cv2.resize(np.random.default_rng(1).normal(0, 1, (200, 250)), (500, 400)).astype(np.float32)
    return np.asarray(215 - 0.35 * (215 - page) * np.clip(0.75 + grain, 0, 1), np.float32)


def with_shadow_on_strokes(page: FloatImage) -> FloatImage:
    """A small shadow with sharp edges, partly on the strokes."""
    shadow = cv2.fillPoly(np.ones_like(page), [np.array([[330, 170], [450, 160], [430, 330]])], 0.6)
    return np.asarray(page * cv2.GaussianBlur(shadow, (0, 0), 2))


def with_shadow_beside_strokes(page: FloatImage) -> FloatImage:
    """A shadow beside the digit, larger than it."""
    shadow = cv2.fillPoly(np.ones_like(page), [np.array([[80, 150], [200, 80], [150, 290]])], 0.6)
    return np.asarray(page * cv2.GaussianBlur(shadow, (0, 0), 2))


def highlighted(page: FloatImage) -> FloatImage:
    """A highlighter's stripe across the strokes."""
    stripe = cv2.line(np.ones_like(page), (120, 140), (470, 150), 0.75, 60)
    return np.asarray(page * stripe)


@pytest.mark.parametrize(
    "change",
    [on_cork_board, faint_and_blurred, in_touching_box, in_pencil, with_shadow_beside_strokes, highlighted],
)
def test_normalise_difficult_photograph_is_read(
    change: Callable[[FloatImage], FloatImage], page: Pixels, seven: Pixels
) -> None:
    assert_same_digit(images.normalise(photograph(change(page.astype(np.float32)))), seven)


def test_normalise_shadow_on_strokes_reads_nine_of_ten(digits: Any) -> None:
    sevens = digits.typical(7, 10)
    pages = [draw_page(seven).astype(np.float32) for seven in sevens]
    found = [images.normalise(photograph(with_shadow_on_strokes(page))) for page in pages]
    assert sum(similarity(*pair) > MIN_SIMILARITY for pair in zip(found, sevens, strict=True)) >= 9


def test_normalise_empty_sheet_on_cork_board_raises_no_ink() -> None:
    with pytest.raises(images.NoInkError):
        images.normalise(photograph(on_cork_board(np.full((400, 500), 215, np.float32))))


def test_normalise_thin_drawing_cropped_to_digit_is_read() -> None:
    zero = np.full((300, 200, 3), 255, np.uint8)
    cv2.ellipse(zero, (100, 150), (98, 148), 0, 0, 360, (0, 0, 0), 4, cv2.LINE_AA)
    found = images.normalise(zero[1:299, 1:199])
    assert found[14, 14] == 0
    assert np.count_nonzero(found[:, 14]) >= 2


def test_normalise_first_dot_of_drawing_is_kept() -> None:
    # The web page requests predictions while a digit is being drawn.
    canvas = np.full((280, 280), 255, np.uint8)
    cv2.circle(canvas, (140, 90), 11, 0, -1)
    assert images.normalise(canvas).max() == 255
