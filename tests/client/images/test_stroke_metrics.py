"""Photographs on which nothing is written, and bold digits, which are nearly taken for the same."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client._exceptions import NoDigitError
from digit_client.images import stroke_metrics
from tests.client.conftest import Pixels, assert_same_digit, photographed

SHAPE = (400, 500)


def ruled(*, squares: bool) -> Pixels:
    """Lines askew, so that the picture's border cuts some of them."""
    sheet = np.full(SHAPE, 215, np.float32)
    for place in range(-10, 500, 27):
        cv2.line(sheet, (0, place), (499, place + 12), 170, 1, cv2.LINE_AA)
        if squares:
            cv2.line(sheet, (place, 0), (place - 12, 399), 170, 1, cv2.LINE_AA)
    return photographed(sheet)


def lit() -> Pixels:
    """A whiteboard with a lamp in it."""
    y, x = np.mgrid[:400, :500].astype(np.float32)
    return photographed(190 + 55 * np.exp(-((x - 330) ** 2 + (y - 150) ** 2) / (2 * 60**2)))


def on_a_table() -> Pixels:
    """A sheet on wood."""
    grain = np.random.default_rng(0).normal(0, 1, (20, 25)).astype(np.float32)
    table = 80 + 8 * cv2.resize(grain, SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
    corners = np.array([[150, 90], [360, 70], [380, 320], [165, 340]], np.int32)
    return photographed(cv2.fillPoly(table, [corners], 225))


def wiped() -> Pixels:
    """A blackboard with what is left of chalk."""
    blotches = np.random.default_rng(0).normal(0, 1, (12, 15)).astype(np.float32)
    return photographed(45 + 9 * cv2.resize(blotches, SHAPE[::-1], interpolation=cv2.INTER_CUBIC))


def shaded() -> Pixels:
    """Paper on which a hand's shadow lies."""
    shadow = cv2.circle(np.zeros(SHAPE, np.float32), (260, 210), 110, 1, -1)
    return photographed(215 * (1 - 0.35 * cv2.GaussianBlur(shadow, (0, 0), 6)))


def shaded_at_the_border() -> Pixels:
    """Paper on which the rounded end of a shadow lies."""
    shadow = cv2.ellipse(np.zeros(SHAPE, np.float32), (200, 400), (110, 90), 10, 0, 360, 1, -1)
    return photographed(215 * (1 - 0.3 * cv2.GaussianBlur(shadow, (0, 0), 2)))


def half_in_shadow(blur: int) -> Pixels:
    """Paper across which a shadow's edge runs."""
    y, x = np.mgrid[:400, :500].astype(np.float32)
    shadow = (x - 0.3 * y > 220).astype(np.float32)
    return photographed(215 * (1 - 0.3 * cv2.GaussianBlur(shadow, (0, 0), blur)))


def lit_by_a_window() -> Pixels:
    """A whiteboard with a long gleam on it, as high as a 1."""
    y, x = np.mgrid[:400, :500].astype(np.float32)
    return photographed(200 + 30 * np.exp(-(((x - 300) / 30) ** 2 + ((y - 200) / 90) ** 2)))


def tiny() -> Pixels:
    """A thumbnail of paper on which the end of a shadow lies."""
    return np.asarray(cv2.resize(shaded_at_the_border(), (80, 64), interpolation=cv2.INTER_AREA))


def lit_at_the_border() -> Pixels:
    """A whiteboard with half a lamp in it."""
    y, x = np.mgrid[:400, :500].astype(np.float32)
    return photographed(190 + 55 * np.exp(-((x - 490) ** 2 + (y - 200) ** 2) / (2 * 60**2)))


@pytest.mark.parametrize(
    "picture",
    [
        ruled(squares=False),
        ruled(squares=True),
        lit(),
        lit_by_a_window(),
        tiny(),
        lit_at_the_border(),
        on_a_table(),
        wiped(),
        shaded(),
        shaded_at_the_border(),
        half_in_shadow(3),
        half_in_shadow(20),
    ],
    ids=[
        "ruled",
        "squared",
        "lamp",
        "window",
        "thumbnail",
        "half a lamp",
        "table",
        "board",
        "shadow",
        "end",
        "edge",
        "soft edge",
    ],
)
def test_nothing_is_read_where_nothing_is_written(picture: Pixels) -> None:
    with pytest.raises(NoDigitError):
        images.normalise(picture)


@pytest.mark.parametrize(("rows", "written"), [((2, 395), False), ((60, 340), True)])
def test_what_keeps_to_the_border_is_no_strokes(rows: tuple[int, int], written: bool) -> None:
    ink = np.zeros(SHAPE, np.float32)
    for row in rows:
        cv2.line(ink, (20, row), (460, row), 1, 3)
    assert stroke_metrics.is_written(ink, 215 - 90 * ink) is written


@pytest.mark.parametrize("darkness", [0.6, 0.2], ids=["dark", "faint"])
@pytest.mark.parametrize("label", [1, 6, 8, 9])
def test_bold_strokes_with_closed_loops_are_written(label: int, darkness: float, digits: Any) -> None:
    large = cv2.resize(digits.one(label), (280, 280), interpolation=cv2.INTER_CUBIC)
    bold = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    sheet = np.full(SHAPE, 215, np.float32)
    sheet[60:340, 120:400] -= bold * np.float32(darkness)
    assert_same_digit(images.normalise(photographed(sheet)), images.normalise(bold))


def test_the_first_dot_of_a_drawing_is_taken_as_it_is() -> None:
    """The page asks while a digit is drawn."""
    canvas = np.full((280, 280), 255, np.uint8)
    cv2.circle(canvas, (140, 90), 11, 0, -1)
    assert images.normalise(canvas).max() == 255


@pytest.mark.parametrize(
    ("paper", "drawn", "clear"), [(205, 105, True), (205, 175, False), (20, 90, True), (20, 30, False)]
)
def test_strokes_are_clear_that_differ_much_from_the_paper(paper: int, drawn: int, clear: bool) -> None:
    ink = cv2.line(np.zeros(SHAPE, np.float32), (150, 90), (190, 300), 1, 12)
    picture = paper + (drawn - paper) * ink
    assert stroke_metrics.is_written(ink, picture)
    assert stroke_metrics.is_clear(ink, picture) is clear


def test_a_line_is_rougher_for_a_blot_and_for_each_piece() -> None:
    line = cv2.line(np.zeros(SHAPE, np.float32), (150, 90), (190, 300), 1, 12)
    blotted = cv2.circle(line.copy(), (170, 200), 20, 1, -1)
    broken = line.copy()
    broken[190:210] = 0
    assert stroke_metrics.roughness(line) < 1.4
    assert stroke_metrics.roughness(blotted) > 2 * stroke_metrics.roughness(line)
    assert stroke_metrics.roughness(broken) > 1.8 * stroke_metrics.roughness(line)
