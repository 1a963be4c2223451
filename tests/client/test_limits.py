"""What a hostile image file meets."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_client import images
from digit_client.errors import ImageError, ImageTooLargeError, PixelValueError
from tests import bombs


@pytest.mark.parametrize("name", bombs.too_large())
def test_what_is_too_large_is_told_so(name: str) -> None:
    with pytest.raises(ImageTooLargeError):
        images.decode(bombs.too_large()[name])


@pytest.mark.parametrize("name", bombs.lies())
def test_what_lies_is_refused(name: str) -> None:
    with pytest.raises(ImageError) as raised:
        images.decode(bombs.lies()[name])
    assert raised.value.code in ("not_an_image", "truncated_image")


@pytest.mark.parametrize("name", bombs.no_numbers())
def test_pixels_are_numbers(name: str) -> None:
    with pytest.raises(PixelValueError):
        images.decode(bombs.no_numbers()[name])


@pytest.mark.parametrize("scans", [10, 50])
def test_a_progressive_photograph_is_read(scans: int) -> None:
    assert images.decode(bombs.scans(scans)).shape == (500, 500)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(bombs.samples())),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7))),
)
def test_a_file_with_bits_flipped_is_read_or_refused(name: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(bombs.samples()[name])
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    with contextlib.suppress(ImageError):
        assert images.decode(bytes(data), max_pixels=50_000).dtype == np.uint8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_tiff_of_any_tag_is_read_or_refused() -> None:
    whole = bombs.samples()["TIFF"]
    (at,) = struct.unpack_from("<I", whole, 4)
    for entry in range(struct.unpack_from("<H", whole, at)[0]):
        for value in (0, 1, 2**16 - 1, 2**31, 2**32 - 1):
            data = bytearray(whole)
            struct.pack_into("<I", data, at + 2 + 12 * entry + 8, value)
            with contextlib.suppress(ImageError):
                assert images.decode(bytes(data), max_pixels=50_000).dtype == np.uint8
