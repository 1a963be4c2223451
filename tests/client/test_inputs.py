"""."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from digit_client import _inputs
from digit_client._exceptions import ImageError, ImageShapeError, NotAnImageError, PixelValueError
from digit_client._inputs import to_png, to_uint8_image

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
    pixels = to_uint8_image(array)
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == expected


@pytest.mark.parametrize("shape", [(), (5,), (5, 5, 2), (5, 5, 5), (1, 5, 5, 3), (0, 5)])
def test_what_has_no_image_s_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageShapeError):
        to_uint8_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 256.0, 1e30])
def test_what_is_no_pixel_is_refused(value: float) -> None:
    array = np.zeros((4, 4))
    array[2, 2] = value
    with pytest.raises(PixelValueError):
        to_uint8_image(array)


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.complex64), np.full((2, 2), "x")])
def test_what_is_no_number_is_refused(array: np.ndarray) -> None:
    with pytest.raises(PixelValueError, match="numbers"):
        to_uint8_image(array)


PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


def test_bytes_paths_and_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "digit.png"
    path.write_bytes(_png())
    for source in (path, str(path), _png(), bytearray(_png()), io.BytesIO(_png())):
        assert _inputs.read(source) == _png()  # type: ignore[arg-type]
    with path.open("rb") as file:
        assert _inputs.read(file) == _png()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_pillow_images_of_every_mode_become_files(mode: str) -> None:
    image = Image.new("L", (4, 3), 200).convert(mode)
    data = _inputs.read(image)
    assert Image.open(io.BytesIO(data)).size == (4, 3)


def test_arrays_become_files() -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(_inputs.read(PIXELS)))), PIXELS)


@pytest.mark.parametrize("source", [None, 5, object(), ["a.png"]])
def test_anything_else_is_refused(source: object) -> None:
    with pytest.raises(NotAnImageError, match=type(source).__name__):
        _inputs.read(source)  # type: ignore[arg-type]


def test_a_bad_array_is_refused() -> None:
    with pytest.raises(ImageError):
        _inputs.read(np.zeros(5))


def test_a_missing_file_is_the_usual_error() -> None:
    with pytest.raises(FileNotFoundError):
        _inputs.read("no/such/file.png")


@pytest.mark.parametrize(
    ("format", "media_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("WEBP", "image/webp"),
        ("PPM", "application/octet-stream"),
    ],
)
def test_the_media_type_is_told_by_the_content(format: str, media_type: str) -> None:  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format)
    assert _inputs.media_type(buffer.getvalue()) == media_type
