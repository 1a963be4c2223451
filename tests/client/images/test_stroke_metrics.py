"""Stroke metrics: blank photographs, and bold digits, which look similar."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import stroke_metrics
from tests.client.images.pictures import FloatImage, Pixels, assert_same_digit, photograph

SHAPE = (400, 500)


def ruled_paper() -> Pixels:
    return oblique_lines(squares=False)


def squared_paper() -> Pixels:
    return oblique_lines(squares=True)


def oblique_lines(*, squares: bool) -> Pixels:
    """Printed lines, some of which the picture's corners cut off."""
    sheet = np.full(SHAPE, 215, np.float32)
    for offset in range(-10, 500, 27):
        cv2.line(sheet, (0, offset), (499, offset + 12), 170, 1, cv2.LINE_AA)
        if squares:
            cv2.line(sheet, (offset, 0), (offset - 12, 399), 170, 1, cv2.LINE_AA)
    return photograph(sheet)


def whiteboard(level: float, peak: float, center: tuple[int, int], radii: tuple[float, float]) -> Pixels:
    """A whiteboard with Gaussian glare: center and radii as x and y in pixels."""
    y, x = np.mgrid[:400, :500].astype(np.float32)
    exponent = ((x - center[0]) / radii[0]) ** 2 + ((y - center[1]) / radii[1]) ** 2
    return photograph(level + peak * np.exp(-exponent))


def lamp_glare() -> Pixels:
    return whiteboard(190, 55, (330, 150), (85, 85))


def lamp_glare_at_border() -> Pixels:
    return whiteboard(190, 55, (490, 200), (85, 85))


def window_glare() -> Pixels:
    """Oblong glare, in the shape of a one."""
    return whiteboard(200, 30, (300, 200), (30, 90))


def sheet_on_table() -> Pixels:
    grain = np.random.default_rng(0).normal(0, 1, (20, 25)).astype(np.float32)
    table = 80 + 8 * cv2.resize(grain, SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
    corners = np.array([[150, 90], [360, 70], [380, 320], [165, 340]], np.int32)
    return photograph(cv2.fillPoly(table, [corners], 225))


def wiped_blackboard() -> Pixels:
    blotches = np.random.default_rng(0).normal(0, 1, (12, 15)).astype(np.float32)
    return photograph(45 + 9 * cv2.resize(blotches, SHAPE[::-1], interpolation=cv2.INTER_CUBIC))


def shade_paper(shadow: FloatImage, darkness: float, blur: int) -> Pixels:
    """Paper under a shadow, float32 [h, w] in 0..1."""
    return photograph(215 * (1 - darkness * cv2.GaussianBlur(shadow, (0, 0), blur)))


def round_shadow() -> Pixels:
    return shade_paper(cv2.circle(np.zeros(SHAPE, np.float32), (260, 210), 110, 1, -1), 0.35, 6)


def rounded_shadow_at_border() -> Pixels:
    shadow = cv2.ellipse(np.zeros(SHAPE, np.float32), (200, 400), (110, 90), 10, 0, 360, 1, -1)
    return shade_paper(shadow, 0.3, 2)


def thumbnail_of_shadow() -> Pixels:
    return np.asarray(cv2.resize(rounded_shadow_at_border(), (80, 64), interpolation=cv2.INTER_AREA))


def half_in_shadow(blur: int) -> Pixels:
    y, x = np.mgrid[:400, :500].astype(np.float32)
    return shade_paper((x - 0.3 * y > 220).astype(np.float32), 0.3, blur)


def sharp_shadow_edge() -> Pixels:
    return half_in_shadow(3)


def soft_shadow_edge() -> Pixels:
    return half_in_shadow(20)


@pytest.mark.parametrize(
    "picture",
    [
        ruled_paper,
        squared_paper,
        lamp_glare,
        lamp_glare_at_border,
        window_glare,
        sheet_on_table,
        wiped_blackboard,
        round_shadow,
        rounded_shadow_at_border,
        thumbnail_of_shadow,
        sharp_shadow_edge,
        soft_shadow_edge,
    ],
)
def test_normalise_blank_photograph_raises_no_ink(picture: Callable[[], Pixels]) -> None:
    with pytest.raises(images.NoInkError):
        images.normalise(picture())


@pytest.mark.parametrize("darkness", [0.6, 0.2], ids=["dark", "faint"])
@pytest.mark.parametrize("label", [1, 6, 8, 9])
def test_normalise_bold_strokes_with_closed_loops_are_read(label: int, darkness: float, digits: Any) -> None:
    large = cv2.resize(digits.one(label), (280, 280), interpolation=cv2.INTER_CUBIC)
    bold = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    sheet = np.full(SHAPE, 215, np.float32)
    sheet[60:340, 120:400] -= bold * np.float32(darkness)
    assert_same_digit(images.normalise(photograph(sheet)), images.normalise(bold))


@pytest.mark.parametrize(("rows", "expected"), [((2, 395), False), ((60, 340), True)])
def test_looks_like_strokes_lines_along_border_return_false(rows: tuple[int, int], expected: bool) -> None:
    ink = np.zeros(SHAPE, np.float32)
    for row in rows:
        cv2.line(ink, (20, row), (460, row), 1, 3)
    assert stroke_metrics.looks_like_strokes(ink, 215 - 90 * ink) is expected


@pytest.mark.parametrize(
    ("paper", "drawn", "expected"), [(205, 105, True), (205, 175, False), (20, 90, True), (20, 30, False)]
)
def test_looks_like_high_contrast_strokes_compares_with_paper(paper: int, drawn: int, expected: bool) -> None:
    ink = cv2.line(np.zeros(SHAPE, np.float32), (150, 90), (190, 300), 1, 12)
    picture = paper + (drawn - paper) * ink
    assert stroke_metrics.looks_like_strokes(ink, picture)
    assert stroke_metrics.looks_like_high_contrast_strokes(ink, picture) is expected


def test_roughness_grows_with_blots_and_gaps() -> None:
    line = cv2.line(np.zeros(SHAPE, np.float32), (150, 90), (190, 300), 1, 12)
    blotted = cv2.circle(line.copy(), (170, 200), 20, 1, -1)
    broken = line.copy()
    broken[190:210] = 0
    assert stroke_metrics.roughness(line) < 1.4
    assert stroke_metrics.roughness(blotted) > 2 * stroke_metrics.roughness(line)
    assert stroke_metrics.roughness(broken) > 1.8 * stroke_metrics.roughness(line)
