"""Background estimation: paper with a table around it, little paper, and flat backgrounds of drawings."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import background
from tests.client.images.pictures import Pixels, assert_same_digit, crop_digit, photograph


def draw_line(paper: tuple[int, ...], ink: tuple[int, ...]) -> Pixels:
    """Draw a thick line on a flat background: uint8 [200, 300] or [200, 300, 3]."""
    picture = np.full((200, 300, len(paper)), paper, np.uint8).squeeze()
    return np.asarray(cv2.line(picture, (100, 40), (180, 160), ink, 20), np.uint8)


def test_normalise_sheet_on_table_is_read(page: Pixels, seven: Pixels) -> None:
    table = np.full((800, 900, 3), (60, 90, 110), np.uint8)
    table[250:650, 150:650] = page[:, :, None]
    assert_same_digit(images.normalise(table), seven)


def test_normalise_rotated_sheet_on_table_is_read(page: Pixels, seven: Pixels) -> None:
    rotation = cv2.getRotationMatrix2D((250, 200), 12, 0.9)
    rotation[:, 2] += (200, 200)
    picture = cv2.warpAffine(page, rotation, (900, 800), borderValue=70)
    expected = cv2.warpAffine(seven, cv2.getRotationMatrix2D((14, 14), 12, 1), (28, 28))
    assert_same_digit(images.normalise(picture), expected)


def test_normalise_strip_of_table_is_ignored(page: Pixels, seven: Pixels) -> None:
    page[:, :40] = 70
    assert_same_digit(images.normalise(page), seven)


@pytest.mark.parametrize("label", [0, 2, 3, 8])
def test_normalise_less_paper_than_ink_is_read(label: int, digits: Any) -> None:
    large = cv2.resize(digits.one(label), (560, 560), interpolation=cv2.INTER_CUBIC)
    bold = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (45, 45)))
    ink = np.asarray(crop_digit(bold) / 255, np.float32)
    paper = 235 * np.linspace(0.7, 1, ink.shape[1], dtype=np.float32)[None, :]
    picture = photograph(paper * (1 - ink) + 60 * ink)
    assert_same_digit(images.normalise(picture), images.normalise(bold))


def foreground(picture: Pixels) -> tuple[Pixels, tuple[int, int]]:
    found = background.flat_foreground(picture)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("paper", "ink", "peak"),
    [
        ((255,), (0,), 255),
        ((20,), (220,), 200),
        ((255, 255, 255), (255, 0, 0), 255),
        ((0, 0, 90), (0, 60, 90), 60),
    ],
)
def test_flat_foreground_drawing_returns_contrast(
    paper: tuple[int, ...], ink: tuple[int, ...], peak: int
) -> None:
    contrast, _ = foreground(draw_line(paper, ink))
    assert contrast.max() == peak
    assert contrast.shape[0] < 160
    assert contrast.shape[1] < 120


@pytest.mark.parametrize("frame", [0, 7])
def test_flat_foreground_drawing_returns_position(frame: int) -> None:
    picture = cv2.circle(np.full((200, 300), 255, np.uint8), (150, 60), 20, 0)
    _, position = foreground(np.pad(picture, frame))
    assert position == (130 + frame, 40 + frame)


def test_flat_foreground_photograph_returns_none() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (200, 300, 3), np.uint8)
    assert background.flat_foreground(draw_line((250, 250, 250), (0, 0, 0)) + noise) is None


def test_flat_foreground_line_across_border_returns_none() -> None:
    picture = draw_line((255,), (0,))
    picture[120] = 180
    assert background.flat_foreground(picture) is None


def test_flat_foreground_mostly_another_color_returns_none() -> None:
    picture = np.full((200, 300), 255, np.uint8)
    picture[10:-10, 10:-10] = 180
    assert background.flat_foreground(picture) is None


@pytest.mark.parametrize("frames", [[(4, 0)], [(30, 255)], [(2, 0), (20, 255), (3, 0)]])
@pytest.mark.parametrize("colors", [(255, 0), (0, 255)])
def test_flat_foreground_frames_are_cropped(colors: tuple[int, int], frames: list[tuple[int, int]]) -> None:
    paper, ink = colors
    framed = draw_line((paper,), (ink,))
    expected, _ = foreground(framed)
    for width, color in frames:
        framed = np.pad(framed, width, constant_values=color)
    contrast, _ = foreground(framed)
    assert np.array_equal(contrast, expected)


@pytest.mark.parametrize(("thickness", "shape"), [(cv2.FILLED, (121, 41)), (12, (133, 53))])
def test_flat_foreground_bar_or_rectangle_is_kept(thickness: int, shape: tuple[int, int]) -> None:
    picture = cv2.rectangle(np.full((200, 300), 255, np.uint8), (120, 40), (160, 160), 0, thickness)
    contrast, _ = foreground(picture)
    assert contrast.shape == shape


@pytest.mark.parametrize("shape", [(200, 300), (4, 1), (1, 4), (4, 1, 3), (1, 1)])
def test_flat_foreground_single_color_returns_no_pixels(shape: tuple[int, ...]) -> None:
    contrast, _ = foreground(np.full(shape, 200, np.uint8))
    assert not contrast.size
