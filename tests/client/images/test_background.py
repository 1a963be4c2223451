"""What lies around the paper and is no ink: tables, for one."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import background
from tests.client.conftest import Pixels, assert_same_digit, cut_out, photographed


def test_a_sheet_on_a_table_is_no_digit(page: Pixels, seven: Pixels) -> None:
    table = np.full((800, 900, 3), (60, 90, 110), np.uint8)
    table[250:650, 150:650] = page[:, :, None]
    assert_same_digit(images.normalise(table), seven)


def test_nor_is_a_sheet_that_lies_askew(page: Pixels, seven: Pixels) -> None:
    turned = cv2.getRotationMatrix2D((250, 200), 12, 0.9)
    turned[:, 2] += (200, 200)
    picture = cv2.warpAffine(page, turned, (900, 800), borderValue=70)
    level = cv2.warpAffine(seven, cv2.getRotationMatrix2D((14, 14), 12, 1), (28, 28))
    assert_same_digit(images.normalise(picture), level)


def test_a_table_beside_the_sheet_is_no_digit(page: Pixels, seven: Pixels) -> None:
    page = page.copy()
    page[:, :40] = 70
    assert_same_digit(images.normalise(page), seven)


@pytest.mark.parametrize("label", [0, 2, 3, 8])
def test_paper_is_found_where_there_is_less_of_it_than_of_ink(label: int, digits: Any) -> None:
    large = cv2.resize(digits.one(label), (560, 560), interpolation=cv2.INTER_CUBIC)
    bold = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (45, 45)))
    cut = np.asarray(cut_out(bold) / 255, np.float32)
    paper = 235 * np.linspace(0.7, 1, cut.shape[1], dtype=np.float32)[None, :]
    picture = photographed(paper * (1 - cut) + 60 * cut)
    assert_same_digit(images.normalise(picture), images.normalise(bold))


def _drawn(ground: tuple[int, ...], ink: tuple[int, ...]) -> background.Picture:
    picture = np.full((200, 300, len(ground)), ground, np.uint8).squeeze()
    return np.asarray(cv2.line(picture, (100, 40), (180, 160), ink, 20), np.uint8)


@pytest.mark.parametrize(
    ("ground", "ink", "strongest"),
    [
        ((255,), (0,), 255),
        ((20,), (220,), 200),
        ((255, 255, 255), (255, 0, 0), 255),
        ((0, 0, 90), (0, 60, 90), 60),
    ],
)
def test_the_ink_departs_from_the_ground(
    ground: tuple[int, ...], ink: tuple[int, ...], strongest: int
) -> None:
    departure = background.flat_foreground(_drawn(ground, ink))
    assert departure is not None
    assert departure.max() == strongest
    assert departure.shape[0] < 160
    assert departure.shape[1] < 120


def test_a_photograph_is_none() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (200, 300, 3), np.uint8)
    assert background.flat_foreground(_drawn((250, 250, 250), (0, 0, 0)) + noise) is None


def test_a_line_that_comes_from_outside_is_none() -> None:
    picture = _drawn((255,), (0,))
    picture[120] = 180
    assert background.flat_foreground(picture) is None


def test_what_is_mostly_of_another_colour_than_the_border_is_none() -> None:
    picture = np.full((200, 300), 255, np.uint8)
    picture[10:-10, 10:-10] = 180
    assert background.flat_foreground(picture) is None


@pytest.mark.parametrize("frames", [[(4, 0)], [(30, 255)], [(2, 0), (20, 255), (3, 0)]])
@pytest.mark.parametrize("colours", [(255, 0), (0, 255)])
def test_a_frame_around_it_is_left_out(colours: tuple[int, int], frames: list[tuple[int, int]]) -> None:
    ground, ink = colours
    framed = _drawn((ground,), (ink,))
    expected = background.flat_foreground(framed)
    for width, colour in frames:
        framed = np.pad(framed, width, constant_values=colour)
    assert expected is not None
    departure = background.flat_foreground(framed)
    assert departure is not None
    assert np.array_equal(departure, expected)


@pytest.mark.parametrize(("thickness", "shape"), [(cv2.FILLED, (121, 41)), (12, (133, 53))])
def test_a_bar_is_no_frame_nor_is_a_rectangular_0(thickness: int, shape: tuple[int, int]) -> None:
    picture = cv2.rectangle(np.full((200, 300), 255, np.uint8), (120, 40), (160, 160), 0, thickness)
    departure = background.flat_foreground(picture)
    assert departure is not None
    assert departure.shape == shape


def test_an_empty_one_departs_nowhere() -> None:
    departure = background.flat_foreground(np.full((200, 300), 255, np.uint8))
    assert departure is not None
    assert not departure.size


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (4, 1, 3), (1, 1)])
def test_a_few_pixels_are_a_picture_too(shape: tuple[int, ...]) -> None:
    departure = background.flat_foreground(np.full(shape, 200, np.uint8))
    assert departure is not None
    assert not departure.size
