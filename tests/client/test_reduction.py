import numpy as np
import pytest

from digit_client import reduction


@pytest.mark.parametrize(
    ("height", "width", "reduced"), [(480, 640, (240, 320)), (1025, 700, (341, 233)), (3, 4000, (1, 500))]
)
def test_a_large_picture_is_divided_by_a_whole_number(
    height: int, width: int, reduced: tuple[int, int]
) -> None:
    picture = np.full((height, width), 77, np.uint8)
    assert reduction.reduced(picture).shape == reduced
    assert (reduction.reduced(picture) == 77).all()


def test_a_pixel_is_the_mean_of_those_it_stands_for() -> None:
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[::2] = 200
    assert (reduction.reduced(stripes) == 100).all()


def test_one_that_is_small_enough_stays() -> None:
    picture = np.zeros((512, 400), np.uint8)
    assert reduction.reduced(picture) is picture
    assert reduction.reduced(picture, 128).shape == (128, 100)
