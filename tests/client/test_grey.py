import numpy as np
import pytest

from digit_client.arrays import Pixels
from digit_client.grey import drop_redundant_channels

GREY = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)


def in_colours(*alpha: int) -> Pixels:
    """The picture in equal red, green and blue, and alpha where it is given."""
    return np.stack([GREY] * 3 + [np.full_like(GREY, level) for level in alpha], axis=2)


@pytest.mark.parametrize("picture", [GREY, in_colours(), in_colours(255)])
def test_what_shows_no_colours_is_grey(picture: Pixels) -> None:
    assert np.array_equal(drop_redundant_channels(picture), GREY)


@pytest.mark.parametrize("row", [0, 5, 39])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_single_pixel_in_colour_is_kept(channel: int, row: int) -> None:
    picture = in_colours()
    picture[row, 7, channel] ^= 1
    assert np.array_equal(drop_redundant_channels(picture), picture)


def test_what_shines_through_is_kept() -> None:
    assert drop_redundant_channels(in_colours(254)).shape == (40, 30, 4)
