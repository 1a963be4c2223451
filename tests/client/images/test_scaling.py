"""Scaling: downscaling by integers, reversal of upscaling, and digits read at any scale."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import scaling
from tests.client.images.pictures import MIN_SIMILARITY, Pixels, crop_digit, photograph, similarity

SMOOTH = [cv2.INTER_LINEAR, cv2.INTER_CUBIC]


def upscale(picture: Pixels, factor: float, interpolation: int) -> Pixels:
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=interpolation), np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(480, 640, (240, 320)), (1025, 700, (341, 233)), (3, 4000, (1, 500))]
)
def test_downscale_large_picture_divides_by_integer(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    picture = np.full((height, width), 77, np.uint8)
    assert scaling.downscale(picture).shape == expected
    assert (scaling.downscale(picture) == 77).all()


def test_downscale_stripes_returns_their_mean() -> None:
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[::2] = 200
    assert (scaling.downscale(stripes) == 100).all()


def test_downscale_small_picture_returns_picture() -> None:
    picture = np.zeros((512, 400), np.uint8)
    assert scaling.downscale(picture) is picture
    assert scaling.downscale(picture, 128).shape == (128, 100)


@pytest.mark.parametrize("factor", [5, 16])
def test_undo_upscaling_repeated_pixels_are_restored(factor: int, seven: Pixels) -> None:
    small = 255 - crop_digit(seven)
    assert np.array_equal(scaling.undo_upscaling(upscale(small, factor, cv2.INTER_NEAREST)), small)
    coloured = np.stack((small, small, 255 - small), axis=-1)
    assert np.array_equal(scaling.undo_upscaling(upscale(coloured, factor, cv2.INTER_NEAREST)), coloured)


@pytest.mark.parametrize("interpolation", SMOOTH)
def test_undo_upscaling_smooth_interpolation_is_reversed(interpolation: int, seven: Pixels) -> None:
    small = 255 - crop_digit(seven)
    restored = scaling.undo_upscaling(upscale(small, 16, interpolation))
    assert small.shape[0] / 2 <= restored.shape[0] <= 4 * small.shape[0]
    expected = cv2.resize(small, restored.shape[::-1], interpolation=interpolation)
    assert np.abs(expected.astype(float) - restored).mean() < 12


def test_undo_upscaling_sharp_picture_returns_picture(page: Pixels) -> None:
    canvas = cv2.circle(np.full((280, 280, 3), 255, np.uint8), (140, 140), 80, (0, 0, 0), 20, cv2.LINE_AA)
    for picture in (canvas, photograph(page.astype(np.float32))):
        assert scaling.undo_upscaling(picture) is picture


def test_undo_upscaling_shaded_empty_paper_returns_picture() -> None:
    shade = photograph(np.linspace(120, 240, 200, dtype=np.float32)[None, :].repeat(200, axis=0))
    assert scaling.undo_upscaling(shade) is shade


@pytest.mark.parametrize("top", [0, 255])
def test_undo_upscaling_nearly_flat_picture_keeps_least_size(top: int) -> None:
    picture = np.zeros((120, 130), np.uint8)
    picture[:60] = top
    assert max(scaling.undo_upscaling(picture).shape) >= 8


@pytest.mark.parametrize("interpolation", [cv2.INTER_NEAREST, *SMOOTH])
@pytest.mark.parametrize("margin", [0, 1])
@pytest.mark.parametrize("label", range(10))
def test_normalise_upscaled_tight_crop_is_read(
    label: int, margin: int, interpolation: int, digits: Any
) -> None:
    similarities = []
    for digit in digits.typical(label, 5):
        fine = 255 - crop_digit(digit)
        small = cv2.resize(fine, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        small = np.pad(small, margin, constant_values=255)
        pictures = (small, *(upscale(small, factor, interpolation) for factor in (6, 12, 25)))
        similarities += [similarity(images.normalise(picture), digit) for picture in pictures]
    # 18 of 20: linear interpolation blurs digits that touch the border, so that a few of the largest differ.
    assert sum(value > MIN_SIMILARITY for value in similarities) >= 18
