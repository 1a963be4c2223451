"""Stripping: what reaches a library of a file, and what is refused."""

import io
import struct

import pytest
from PIL import Image

from digit_core import errors, images
from digit_core.images import stripping
from tests.decompression_bombs import (
    PNG_SIGNATURE,
    encode,
    exif,
    jpeg_segment,
    png,
    png_chunk,
    tiff,
    valid_files,
    with_jpeg_head,
)


def test_strip_png_keeps_pixel_chunks_only() -> None:
    text = png_chunk(b"tEXt", b"Comment\0hello")
    assert stripping.strip_png(png(28, 28, extra=text) + b"PK\3\4") == png(28, 28)


def test_strip_png_keeps_first_of_repeated_chunks() -> None:
    palette = png_chunk(b"PLTE", bytes(3))
    file = png(28, 28, extra=palette + png_chunk(b"PLTE", bytes(6)))
    assert stripping.strip_png(file) == png(28, 28, extra=palette)


def test_strip_png_of_a_file_without_all_pixels_raises_truncated_image() -> None:
    cut = [png(28, 28)[:end] for end in (-1, -13, 40, 8)]
    for file in (*cut, PNG_SIGNATURE + png_chunk(b"tEXt", b"Comment\0hello")):
        with pytest.raises(errors.TruncatedImageError):
            stripping.strip_png(file)


def test_strip_jpeg_keeps_first_exif_and_pixels_only() -> None:
    first, second = (jpeg_segment(0xE1, b"Exif\0\0" + exif((274, 3, 1, turn))) for turn in (6, 3))
    other = jpeg_segment(0xED, b"Photoshop") + jpeg_segment(0xFE, b"comment")
    assert stripping.strip_jpeg(with_jpeg_head(other + first + second)) == with_jpeg_head(first)


def test_strip_jpeg_skips_fill_bytes_and_markers_without_length() -> None:
    for extra in (b"\xff\xff\xff", b"\xff\xd8", b"\xff\xd0\0\0", b"\0\0"):
        assert stripping.strip_jpeg(with_jpeg_head(extra)) == with_jpeg_head(b"")


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_strip_jpeg_decodes_as_the_whole_file(options: dict[str, int]) -> None:
    for mode in ("L", "RGB", "CMYK"):
        file = encode(Image.linear_gradient("L").convert(mode), "JPEG", comment="hello", **options)
        with (
            Image.open(io.BytesIO(file)) as whole,
            Image.open(io.BytesIO(stripping.strip_jpeg(file))) as part,
        ):
            assert whole.tobytes() == part.tobytes()


def test_strip_jpeg_without_scan_raises_truncated_image() -> None:
    for end in (3, 30, 200):
        with pytest.raises(errors.TruncatedImageError):
            images.decode(valid_files()["JPEG"][:end])


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        ("1", "group4"), ("1", "group3"), ("L", "tiff_lzw"), ("P", "packbits"), ("RGB", "jpeg"),
        ("RGBA", "tiff_adobe_deflate"), ("CMYK", "raw"), ("YCbCr", "jpeg"), ("F", "raw"), ("I;16", "raw"),
    ],
)  # fmt: skip
def test_strip_tiff_decodes_as_the_whole_file(mode: str, compression: str) -> None:
    picture = Image.linear_gradient("L")
    picture = picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
    file = encode(picture, "TIFF", compression=compression, description="hello", dpi=(300, 300))
    stripped = stripping.strip_tiff(file)
    with Image.open(io.BytesIO(file)) as whole, Image.open(io.BytesIO(stripped)) as part:
        assert whole.tobytes() == part.tobytes()
        assert (270 in whole.getexif(), 270 in part.getexif()) == (True, False)


def test_strip_tiff_keeps_first_picture_only() -> None:
    pages = io.BytesIO()
    Image.new("L", (28, 28)).save(pages, "TIFF", save_all=True, append_images=[Image.new("L", (28, 28))])
    with Image.open(io.BytesIO(stripping.strip_tiff(pages.getvalue()))) as part:
        assert getattr(part, "n_frames", 1) == 1


def test_strip_tiff_cut_off_raises_truncated_image() -> None:
    for file in (b"II*\0\x08\0\0", b"II*\0" + struct.pack("<I", 2**31), tiff(b"")[:30]):
        with pytest.raises(errors.TruncatedImageError):
            images.decode(file)
