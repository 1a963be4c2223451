import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from digit_client.arrays import as_pixels, to_png
from digit_client.errors import ImageShapeError, PixelValueError

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda size: st.sampled_from([size, (*size, 3), (*size, 4)])
)


@given(arrays.arrays(np.uint8, SHAPES))
def test_a_png_holds_the_same_pixels(pixels: np.ndarray) -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(to_png(pixels)))), pixels)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [[0, 255]]),
        (np.array([[0, 65535]], np.uint16), [[0, 255]]),
        (np.array([[False, True]]), [[0, 255]]),
        (np.array([[0.0, 0.5, 1.0]]), [[0, 128, 255]]),
        (np.array([[0.0, 128.0, 255.0]], np.float32), [[0, 128, 255]]),
        (np.array([[0, 1, 200]], np.int64), [[0, 1, 200]]),
        (np.array([[[7], [8]]], np.uint8), [[7, 8]]),
    ],
)
def test_every_number_type_becomes_bytes(array: np.ndarray, expected: list[list[int]]) -> None:
    pixels = as_pixels(array)
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == expected


@pytest.mark.parametrize("shape", [(), (5,), (5, 5, 2), (5, 5, 5), (1, 5, 5, 3), (0, 5)])
def test_what_has_no_image_s_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageShapeError):
        as_pixels(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 256.0, 1e30])
def test_what_is_no_pixel_is_refused(value: float) -> None:
    array = np.zeros((4, 4))
    array[2, 2] = value
    with pytest.raises(PixelValueError):
        as_pixels(array)


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.complex64), np.full((2, 2), "x")])
def test_what_is_no_number_is_refused(array: np.ndarray) -> None:
    with pytest.raises(PixelValueError, match="numbers"):
        as_pixels(array)
