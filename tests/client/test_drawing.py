"""Ink on a ground of one colour."""

import cv2
import numpy as np
import pytest

from digit_client import drawing


def _drawn(ground: tuple[int, ...], ink: tuple[int, ...]) -> drawing.Picture:
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
    departure = drawing.departure(_drawn(ground, ink))
    assert departure is not None
    assert departure.max() == strongest
    assert departure.shape[0] < 160
    assert departure.shape[1] < 120


def test_a_photograph_is_none() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (200, 300, 3), np.uint8)
    assert drawing.departure(_drawn((250, 250, 250), (0, 0, 0)) + noise) is None


def test_a_line_that_comes_from_outside_is_none() -> None:
    picture = _drawn((255,), (0,))
    picture[120] = 180
    assert drawing.departure(picture) is None


def test_what_is_mostly_of_another_colour_than_the_border_is_none() -> None:
    picture = np.full((200, 300), 255, np.uint8)
    picture[10:-10, 10:-10] = 180
    assert drawing.departure(picture) is None


@pytest.mark.parametrize("frames", [[(4, 0)], [(30, 255)], [(2, 0), (20, 255), (3, 0)]])
@pytest.mark.parametrize("colours", [(255, 0), (0, 255)])
def test_a_frame_around_it_is_left_out(colours: tuple[int, int], frames: list[tuple[int, int]]) -> None:
    ground, ink = colours
    framed = _drawn((ground,), (ink,))
    expected = drawing.departure(framed)
    for width, colour in frames:
        framed = np.pad(framed, width, constant_values=colour)
    assert expected is not None
    departure = drawing.departure(framed)
    assert departure is not None
    assert np.array_equal(departure, expected)


@pytest.mark.parametrize(("thickness", "shape"), [(cv2.FILLED, (121, 41)), (12, (133, 53))])
def test_a_bar_is_no_frame_nor_is_a_rectangular_0(thickness: int, shape: tuple[int, int]) -> None:
    picture = cv2.rectangle(np.full((200, 300), 255, np.uint8), (120, 40), (160, 160), 0, thickness)
    departure = drawing.departure(picture)
    assert departure is not None
    assert departure.shape == shape


def test_an_empty_one_departs_nowhere() -> None:
    departure = drawing.departure(np.full((200, 300), 255, np.uint8))
    assert departure is not None
    assert not departure.size


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (4, 1, 3), (1, 1)])
def test_a_few_pixels_are_a_picture_too(shape: tuple[int, ...]) -> None:
    departure = drawing.departure(np.full(shape, 200, np.uint8))
    assert departure is not None
    assert not departure.size
