import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digit_client import sources
from digit_client.errors import ImageError, NotAnImageError

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


def test_bytes_paths_and_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "digit.png"
    path.write_bytes(_png())
    for source in (path, str(path), _png(), bytearray(_png()), io.BytesIO(_png())):
        assert sources.read(source) == _png()  # type: ignore[arg-type]
    with path.open("rb") as file:
        assert sources.read(file) == _png()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_pillow_images_of_every_mode_become_files(mode: str) -> None:
    image = Image.new("L", (4, 3), 200).convert(mode)
    data = sources.read(image)
    assert Image.open(io.BytesIO(data)).size == (4, 3)


def test_arrays_become_files() -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sources.read(PIXELS)))), PIXELS)


@pytest.mark.parametrize("source", [None, 5, object(), ["a.png"]])
def test_anything_else_is_refused(source: object) -> None:
    with pytest.raises(NotAnImageError, match=type(source).__name__):
        sources.read(source)  # type: ignore[arg-type]


def test_a_bad_array_is_refused() -> None:
    with pytest.raises(ImageError):
        sources.read(np.zeros(5))


def test_a_missing_file_is_the_usual_error() -> None:
    with pytest.raises(FileNotFoundError):
        sources.read("no/such/file.png")


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
    assert sources.media_type(buffer.getvalue()) == media_type
