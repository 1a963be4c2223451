"""Image inputs: sources, array conversion, PNG encoding, and media types."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from digit_core import inputs as _inputs
from digit_core.errors import ImageError, ImageShapeError, NotAnImageError, PixelValueError
from digit_core.inputs import to_png, to_uint8_image

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda size: st.sampled_from([size, (*size, 3), (*size, 4)])
)
PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.fixture(scope="module")
def png() -> bytes:
    """PNG file of PIXELS, written by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


@settings(max_examples=30)
@given(arrays.arrays(np.uint8, SHAPES))
def test_to_png_keeps_pixels(pixels: np.ndarray) -> None:
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
def test_to_uint8_image_every_number_type_is_scaled(array: np.ndarray, expected: list[list[int]]) -> None:
    pixels = to_uint8_image(array)
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == expected


@pytest.mark.parametrize(
    ("array", "error"),
    [
        *(
            (np.zeros(shape), ImageShapeError)
            for shape in ((), (5,), (5, 5, 2), (5, 5, 5), (1, 5, 5, 3), (0, 5))
        ),
        *((np.diag([0, value]), PixelValueError) for value in (np.nan, np.inf, -0.1, 256.0, 1e30)),
        *((array, PixelValueError) for array in (np.zeros((2, 2), np.complex64), np.full((2, 2), "x"))),
    ],
)
def test_to_uint8_image_other_shape_value_or_type_raises_its_error(
    array: np.ndarray, error: type[ImageError]
) -> None:
    with pytest.raises(error):
        to_uint8_image(array)


def test_read_source_bytes_path_or_file_returns_content(png: bytes, tmp_path: Path) -> None:
    path = tmp_path / "digit.png"
    path.write_bytes(png)
    for source in (path, str(path), png, bytearray(png), io.BytesIO(png)):
        assert _inputs.read_source(source) == png  # type: ignore[arg-type]
    with path.open("rb") as file:
        assert _inputs.read_source(file) == png
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(_inputs.read_source(PIXELS)))), PIXELS)
    with pytest.raises(FileNotFoundError):
        _inputs.read_source("no/such/file.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_read_source_pillow_image_of_every_mode_returns_file(mode: str) -> None:
    image = Image.new("L", (4, 3), 200).convert(mode)
    data = _inputs.read_source(image)
    assert Image.open(io.BytesIO(data)).size == (4, 3)


@pytest.mark.parametrize("source", [None, 5, object(), ["a.png"]])
def test_read_source_other_type_raises_not_an_image(source: object) -> None:
    with pytest.raises(
        NotAnImageError, match=rf"an image must be a path, bytes, .* not {type(source).__name__}"
    ):
        _inputs.read_source(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["image/png", "image/jpeg", "image/gif", "image/bmp", "image/tiff", "image/webp"]
)
def test_media_type_is_detected_by_content(name: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, name.partition("/")[2])
    assert _inputs.media_type(buffer.getvalue()) == name
    assert _inputs.media_type(b"P5 1 1 255 0") == "application/octet-stream"


def test_read_source_url_raises_not_an_image_error_with_remedy() -> None:
    for url in ("https://example.org/5.png", "HTTP://example.org/5.png"):
        with pytest.raises(NotAnImageError, match=f"download {url} and pass its bytes"):
            _inputs.read_source(url)
