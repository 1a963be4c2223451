"""Small pictures, enlarged, and pictures that are as large as they look."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import scaling
from tests.client.conftest import Pixels, cut_out, likeness, photographed


@pytest.mark.parametrize(
    ("height", "width", "reduced"), [(480, 640, (240, 320)), (1025, 700, (341, 233)), (3, 4000, (1, 500))]
)
def test_a_large_picture_is_divided_by_a_whole_number(
    height: int, width: int, reduced: tuple[int, int]
) -> None:
    picture = np.full((height, width), 77, np.uint8)
    assert scaling.reduced(picture).shape == reduced
    assert (scaling.reduced(picture) == 77).all()


def test_a_pixel_is_the_mean_of_those_it_stands_for() -> None:
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[::2] = 200
    assert (scaling.reduced(stripes) == 100).all()


def test_one_that_is_small_enough_stays() -> None:
    picture = np.zeros((512, 400), np.uint8)
    assert scaling.reduced(picture) is picture
    assert scaling.reduced(picture, 128).shape == (128, 100)


SMOOTH = [cv2.INTER_LINEAR, cv2.INTER_CUBIC]


def enlarged(picture: Pixels, factor: float, how: int) -> Pixels:
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=how), np.uint8)


@pytest.mark.parametrize("factor", [5, 16])
def test_repeated_pixels_are_taken_once(factor: int, seven: Pixels) -> None:
    small = 255 - cut_out(seven)
    assert np.array_equal(scaling.undone(enlarged(small, factor, cv2.INTER_NEAREST)), small)
    coloured = np.stack((small, small, 255 - small), axis=-1)
    assert np.array_equal(scaling.undone(enlarged(coloured, factor, cv2.INTER_NEAREST)), coloured)


@pytest.mark.parametrize("how", SMOOTH)
def test_what_is_interpolated_becomes_about_as_small_as_it_was(how: int, seven: Pixels) -> None:
    small = 255 - cut_out(seven)
    undone = scaling.undone(enlarged(small, 16, how))
    assert small.shape[0] / 2 <= undone.shape[0] <= 4 * small.shape[0]
    there = cv2.resize(small, undone.shape[::-1], interpolation=how)
    assert np.abs(there.astype(float) - undone).mean() < 12


def test_what_is_sharp_is_left(page: Pixels) -> None:
    canvas = cv2.circle(np.full((280, 280, 3), 255, np.uint8), (140, 140), 80, (0, 0, 0), 20, cv2.LINE_AA)
    for picture in (canvas, photographed(page.astype(np.float32))):
        assert scaling.undone(picture) is picture


def test_light_on_empty_paper_is_left() -> None:
    shade = photographed(np.linspace(120, 240, 200, dtype=np.float32)[None, :].repeat(200, axis=0))
    assert scaling.undone(shade) is shade


@pytest.mark.parametrize("top", [0, 255])
def test_what_shows_little_stays_a_picture(top: int) -> None:
    picture = np.zeros((120, 130), np.uint8)
    picture[:60] = top
    assert max(scaling.undone(picture).shape) >= 8


@pytest.mark.parametrize("how", [cv2.INTER_NEAREST, *SMOOTH])
@pytest.mark.parametrize("margin", [0, 1])
@pytest.mark.parametrize("label", range(10))
def test_a_digit_that_fills_a_small_picture_is_read_at_any_size(
    label: int, margin: int, how: int, digits: Any
) -> None:
    agreements = []
    for digit in digits.typical(label, 5):
        fine = 255 - cut_out(digit)
        small = np.pad(
            cv2.resize(fine, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA), margin, constant_values=255
        )
        pictures = (small, *(enlarged(small, factor, how) for factor in (6, 12, 25)))
        agreements += [likeness(images.normalise(picture), digit) for picture in pictures]
    # Linear interpolation of a digit that touches the border blurs it: some of the largest pictures differ.
    assert sum(agreement > 0.85 for agreement in agreements) >= 18
