"""Decoding: formats, limits and hostile files."""

import contextlib
import io
import struct
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from digit_core import errors, images
from tests import decompression_bombs
from tests.core.images.pictures import Pixels, assert_same_digit
from tests.decompression_bombs import PNG_SIGNATURE, png, progressive_jpeg, valid_files


def encode(pixels: Pixels, form: str, **options: Any) -> bytes:
    return decompression_bombs.encode(Image.fromarray(pixels), form, **options)


def flip_bits(file: bytes, offset: int, bits: int) -> bytes:
    return file[:offset] + bytes([file[offset] ^ bits]) + file[offset + 1 :]


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_decode_lossless_format_returns_pixels(form: str, page: Pixels) -> None:
    decoded = images.decode(encode(page, form))
    assert np.array_equal(decoded if decoded.ndim == 2 else decoded[:, :, 0], page)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "HEIF"])
def test_decode_lossy_format_returns_similar_pixels(form: str, page: Pixels) -> None:
    decoded = images.decode(encode(cv2.cvtColor(page, cv2.COLOR_GRAY2RGB), form, quality=95))
    grey = decoded if decoded.ndim == 2 else decoded[:, :, 0]
    assert np.abs(grey.astype(int) - page).mean() < 2


def test_decode_color_picture_returns_rgb() -> None:
    rgb = np.array([[[250, 20, 30], [20, 250, 30]]], np.uint8)
    jpeg = encode(rgb, "JPEG")
    assert (images.decode(jpeg).ndim, images.open_image(jpeg, grey=True).decode().ndim) == (3, 2)
    for form in ("PNG", "BMP"):
        assert np.array_equal(images.decode(encode(rgb, form)), rgb)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "I;16", "CMYK"])
def test_decode_pixel_mode_keeps_digit(mode: str, page: Pixels, seven: Pixels) -> None:
    image = Image.fromarray(page.astype(np.uint16) * 257 if mode == "I;16" else page)
    file = decompression_bombs.encode(image.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    assert_same_digit(images.normalise(images.decode(file)), seven)


def test_decode_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait = images.decode(encode(np.zeros((20, 40), np.uint8), "JPEG", exif=exif))
    assert portrait.shape[:2] == (40, 20)


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_exif_orientation_is_that_of_pillow(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = np.arange(600, dtype=np.uint16).reshape(20, 30).clip(0, 255).astype(np.uint8)
    file = encode(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), form, exif=exif)
    with Image.open(io.BytesIO(file)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    opened = images.open_image(file)
    assert np.array_equal(opened.decode(), expected)
    assert opened.size == expected.shape[:2]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(4000, 3000, 1000), (640, 480, 640), (1280, 960, 640), (4160, 3120, 1040), (1000, 700, 500)],
)
def test_decode_large_jpeg_is_downscaled(width: int, height: int, expected: int) -> None:
    photograph = encode(np.full((height, width), 200, np.uint8), "JPEG")
    assert images.decode(photograph).shape == (expected * height // width, expected)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_decode_truncated_file_raises_image_error(form: str, share: float) -> None:
    data = encode(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8), form)
    with pytest.raises((errors.TruncatedImageError, errors.NotAnImageError)):
        images.decode(data[: int(len(data) * share)])


def test_decode_damaged_png_raises_truncated_image(page: Pixels) -> None:
    data = encode(page, "PNG")
    with pytest.raises(errors.TruncatedImageError):
        images.decode(flip_bits(data, len(data) // 2, 0xFF))


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.4", b"\x00" * 100, b"<svg/>"])
def test_decode_other_data_raises_not_an_image(data: bytes) -> None:
    with pytest.raises(errors.NotAnImageError):
        images.decode(data)


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG"])
def test_decode_too_many_pixels_raises_image_too_large(form: str) -> None:
    data = encode(np.zeros((100, 100), np.uint8), form)
    with pytest.raises(errors.ImageTooLargeError, match="100×100"):
        images.decode(data, max_pixels=2000)


@given(st.binary(max_size=200), st.sampled_from([b"", PNG_SIGNATURE, b"\xff\xd8\xff", b"GIF89a", b"BM"]))
def test_decode_any_bytes_return_pixels_or_raise_image_error(rest: bytes, signature: bytes) -> None:
    with contextlib.suppress(errors.ImageError):
        assert images.decode(signature + rest).dtype == np.uint8


def test_decode_transparent_picture_keeps_alpha() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (110, 130, 4), np.uint8)
    for alpha in (255, 254, 0):
        picture[..., 3] = alpha
        assert np.array_equal(images.decode(encode(picture, "PNG")), picture)
    assert np.array_equal(images.decode(encode(picture, "WEBP", lossless=True, exact=True)), picture)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        pytest.param(file, error, id=name)
        for files, error in (
            (decompression_bombs.oversized_files(), errors.ImageTooLargeError),
            (decompression_bombs.malformed_files(), (errors.NotAnImageError, errors.TruncatedImageError)),
            (decompression_bombs.non_finite_files(), errors.PixelValueError),
        )
        for name, file in files.items()
    ],
)
def test_decode_hostile_file_raises_its_error(file: bytes, error: Any) -> None:
    with pytest.raises(error):
        images.decode(file)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", decompression_bombs.files_of_metadata())
def test_decode_metadata_takes_few_steps(name: str) -> None:
    file, calls = decompression_bombs.files_of_metadata()[name], 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        pixels = images.decode(file)
    finally:
        sys.setprofile(None)
    assert pixels.shape[:2] == (28, 28)
    assert calls < 200_000


def test_open_image_refusal_of_data_says_what_to_do() -> None:
    with pytest.raises(errors.ImageTooLargeError, match=r"more data than its 28×28 pixels .* save it again"):
        images.open_image(png(28, 28, surplus=2**25))
    with pytest.raises(errors.ImageTooLargeError, match=r"more than 10,000 parts.* save it again"):
        images.open_image(png(28, 28, extra=decompression_bombs.png_chunk(b"tEXt", b"") * 10_000))
    with pytest.raises(errors.NotAnImageError, match=r"plain PNM.* save the picture as PNG"):
        images.open_image(b"P2 1 1 255 0")
    with pytest.raises(errors.NotAnImageError, match=r"RLE.* save the picture as PNG"):
        images.open_image(decompression_bombs.bmp(28, 28, 1, 8, bytes(1024) + b"\x1c\0\0\0" * 28))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("side", [1, 28, 300])
def test_decode_png_of_noise_is_not_refused(side: int, compressed: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    assert np.array_equal(images.decode(encode(noise, "PNG", compress_level=9 * compressed)), noise)


@pytest.mark.parametrize(
    ("file", "least"),
    [
        pytest.param(png(28, 28), 64 * len(png(28, 28)), id="png of few bytes"),
        pytest.param(png(1000, 1000), 1000 * 1000, id="png"),
        pytest.param(png(1000, 1000, color_type=6, depth=16), 2 * 1000 * 1000, id="png of 16 bits"),
        pytest.param(png(1, 100_000), 300_000, id="png of many rows"),
        pytest.param(png(28, 28) + bytes(8_000_000), 64 * len(png(28, 28)), id="png before a zip"),
        pytest.param(progressive_jpeg(50, 980), 980 * 980 * 50 // 4, id="jpeg of 50 scans"),
        pytest.param(valid_files()["WEBP"] + bytes(1_000_000), 2_000_000, id="webp of a megabyte"),
        pytest.param(valid_files()["TIFF"], 4 * 40 * 40, id="tiff"),
    ],
)
def test_open_image_cost_counts_bytes_rows_and_scans(file: bytes, least: int) -> None:
    assert least <= images.open_image(file).cost <= 1.3 * least


def test_decode_heic_without_its_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(errors.NotAnImageError, match="digits\\[heif\\]"):
        images.decode(valid_files()["HEIF"])
    with pytest.raises(errors.NotAnImageError, match=r"supported: PNG, .*\bWEBP$"):
        images.decode(b"no picture")


def test_decode_progressive_jpeg_is_limited_to_64_scans() -> None:
    repeats = 64 - progressive_jpeg(0, side=1000).count(b"\xff\xda")
    assert images.decode(progressive_jpeg(repeats, side=1000)).shape == (500, 500)
    with pytest.raises(errors.ImageTooLargeError, match="65 scans"):
        images.decode(progressive_jpeg(repeats + 1, side=1000))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(
    name=st.sampled_from(sorted(valid_files())),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7))),
)
def test_decode_flipped_bits_return_pixels_or_raise_image_error(
    name: str, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(valid_files()[name])
    for position, bit in flips:
        data[int(position * len(data))] ^= 1 << bit
    with contextlib.suppress(errors.ImageError):
        assert images.decode(bytes(data), max_pixels=50_000).dtype == np.uint8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_decode_tiff_of_any_tag_value_returns_pixels_or_raises_image_error() -> None:
    file = valid_files()["TIFF"]
    (directory,) = struct.unpack_from("<I", file, 4)
    for entry in range(struct.unpack_from("<H", file, directory)[0]):
        for value in (0, 1, 2**16 - 1, 2**31, 2**32 - 1):
            data = bytearray(file)
            struct.pack_into("<I", data, directory + 2 + 12 * entry + 8, value)
            with contextlib.suppress(errors.ImageError):
                assert images.decode(bytes(data), max_pixels=50_000).dtype == np.uint8
