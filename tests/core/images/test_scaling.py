"""Scaling: downscaling by integers."""

import numpy as np
import pytest

from digit_core.images import scaling


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(480, 640, (240, 320)), (1025, 700, (341, 233)), (3, 4000, (1, 500))]
)
def test_downscale_large_picture_divides_by_integer(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    picture = np.full((height, width), 77, np.uint8)
    assert scaling.downscale(picture, 512).shape == expected
    assert (scaling.downscale(picture, 512) == 77).all()


def test_downscale_stripes_returns_their_mean() -> None:
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[::2] = 200
    assert (scaling.downscale(stripes, 512) == 100).all()


def test_downscale_small_picture_returns_picture() -> None:
    picture = np.zeros((512, 400), np.uint8)
    assert scaling.downscale(picture, 512) is picture
    assert scaling.downscale(picture, 128).shape == (128, 100)
