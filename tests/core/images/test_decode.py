"""Decoding: formats, limits, PNG files as OpenCV decodes them, and hostile files."""

import contextlib
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from digit_core import images
from digit_core.errors import (
    ImageError,
    ImageTooLargeError,
    NotAnImageError,
    PixelValueError,
    TruncatedImageError,
)
from digit_core.images.decode import strip_ancillary_chunks
from tests import decompression_bombs
from tests.core.images.pictures import Pixels, assert_same_digit
from tests.decompression_bombs import PNG_SIGNATURE, png, png_chunk, progressive_jpeg, valid_files

FIRST_CHUNK = 8 + 12 + 13
"""Offset of the chunk after a PNG's header."""


def encode(pixels: Pixels, form: str, **options: Any) -> bytes:
    return decompression_bombs.encode(Image.fromarray(pixels), form, **options)


def noise_picture(channels: int) -> Pixels:
    """Return noise: uint8 [110, 130] or [110, 130, channels]."""
    noise = np.random.default_rng(channels).integers(0, 256, (110, 130, channels), np.uint8)
    return noise[..., 0] if channels == 1 else noise


def encode_png(pixels: Pixels, *filters: int) -> bytes:
    """Encode the picture as a PNG whose rows have these filters in turn: 0 (none), 1 (sub) or 2 (up)."""
    height, width = pixels.shape[:2]
    channels = pixels.size // (height * width)
    rows = pixels.reshape(height, -1)
    sub, up = rows.copy(), rows.copy()
    sub[:, channels:] -= rows[:, :-channels]
    up[1:] -= rows[:-1]
    filtered, kinds = (rows, sub, up), (filters * height)[:height]
    content = b"".join(bytes([kind]) + filtered[kind][row].tobytes() for row, kind in enumerate(kinds))
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def encode_mode(mode: str, **options: Any) -> bytes:
    return decompression_bombs.encode(Image.fromarray(noise_picture(3)).convert(mode), "PNG", **options)


def flip_bits(file: bytes, offset: int, bits: int) -> bytes:
    return file[:offset] + bytes([file[offset] ^ bits]) + file[offset + 1 :]


def with_header(file: bytes, *, height: int = 110, interlaced: int = 0) -> bytes:
    header = file[16:20] + struct.pack(">I", height) + file[24:28] + bytes([interlaced])
    return file[:8] + png_chunk(b"IHDR", header) + file[FIRST_CHUNK:]


def with_pixel_data(content: bytes) -> bytes:
    return (
        encode_png(noise_picture(1), 1)[:FIRST_CHUNK] + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
    )


def decode_with_opencv(file: bytes) -> Pixels | None:
    """Return OpenCV's pixels of the whole file as grey, RGB or RGBA; None if OpenCV refuses the file."""
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        return None
    return images.to_uint8_image(pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


def is_decoded_as_by_opencv(file: bytes) -> bool:
    """True if the pixels equal OpenCV's, or both refuse the file."""
    expected = decode_with_opencv(file)
    try:
        found = images.decode(file)
    except TruncatedImageError:
        return expected is None
    return expected is not None and np.array_equal(found, expected)


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_decode_lossless_format_returns_pixels(form: str, page: Pixels) -> None:
    decoded = images.decode(encode(page, form))
    assert np.array_equal(decoded if decoded.ndim == 2 else decoded[:, :, 0], page)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "HEIF"])
def test_decode_lossy_format_returns_similar_pixels(form: str, page: Pixels) -> None:
    decoded = images.decode(encode(cv2.cvtColor(page, cv2.COLOR_GRAY2RGB), form, quality=95))
    grey = decoded if decoded.ndim == 2 else decoded[:, :, 0]
    assert np.abs(grey.astype(int) - page).mean() < 2


def test_decode_color_picture_returns_rgb_or_rgba() -> None:
    rgba = np.array([[[250, 20, 30, 255], [20, 250, 30, 128]]], np.uint8)
    jpeg = encode(rgba[:, :, :3], "JPEG")
    assert (images.decode(jpeg).ndim, images.decode(jpeg, grey=True).ndim) == (3, 2)
    assert np.array_equal(images.decode(encode(rgba, "PNG")), rgba)
    assert np.array_equal(images.decode(encode(rgba[:, :, :3], "PNG")), rgba[:, :, :3])
    assert np.array_equal(images.decode(encode(rgba[:, :, :3], "BMP")), rgba[:, :, :3])


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
    with pytest.raises((TruncatedImageError, NotAnImageError)):
        images.decode(data[: int(len(data) * share)])


def test_decode_damaged_png_raises_truncated_image(page: Pixels) -> None:
    data = encode(page, "PNG")
    with pytest.raises(TruncatedImageError):
        images.decode(flip_bits(data, len(data) // 2, 0xFF))


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.4", b"\x00" * 100, b"<svg/>"])
def test_decode_other_data_raises_not_an_image(data: bytes) -> None:
    with pytest.raises(NotAnImageError):
        images.decode(data)


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG"])
def test_decode_too_many_pixels_raises_image_too_large(form: str) -> None:
    data = encode(np.zeros((100, 100), np.uint8), form)
    with pytest.raises(ImageTooLargeError, match="100×100"):
        images.decode(data, max_pixels=2000)


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", PNG_SIGNATURE, b"\xff\xd8\xff", b"GIF89a", b"BM"]))
def test_decode_any_bytes_return_pixels_or_raise_image_error(rest: bytes, signature: bytes) -> None:
    with contextlib.suppress(ImageError):
        assert images.decode(signature + rest).dtype == np.uint8


def test_strip_ancillary_chunks_keeps_pixel_chunks_only() -> None:
    text = png_chunk(b"tEXt", b"Comment\0hello")
    assert strip_ancillary_chunks(png(28, 28, extra=text) + b"PK\3\4") == png(28, 28)


@pytest.mark.parametrize("end", [-1, -13, 40, 8])
def test_strip_ancillary_chunks_truncated_file_raises_truncated_image(end: int) -> None:
    with pytest.raises(TruncatedImageError):
        strip_ancillary_chunks(png(28, 28)[:end])


def test_strip_ancillary_chunks_without_pixels_raises_truncated_image() -> None:
    with pytest.raises(TruncatedImageError):
        strip_ancillary_chunks(PNG_SIGNATURE + png_chunk(b"tEXt", b"Comment\0hello"))


@pytest.mark.parametrize("filters", [(0,), (1,), (1, 0, 0, 1, 1), (2,)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_decode_png_of_every_filter_returns_pixels(channels: int, filters: tuple[int, ...]) -> None:
    picture = noise_picture(channels)
    file = encode_png(picture, *filters)
    assert np.array_equal(images.decode(file), picture)
    assert is_decoded_as_by_opencv(file)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
def test_decode_png_of_single_row_or_column_returns_pixels(shape: tuple[int, int], kind: int) -> None:
    line = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.array_equal(images.decode(encode_png(line, kind)), line)


@pytest.mark.parametrize("alpha", [255, 254, 0])
def test_decode_png_with_alpha_keeps_alpha(alpha: int) -> None:
    picture = noise_picture(4)
    picture[..., 3] = alpha
    assert np.array_equal(images.decode(encode_png(picture, 1)), picture)


UNUSUAL_PNGS: dict[str, Callable[[], bytes]] = {
    "filters by Pillow": lambda: encode_mode("RGB"),
    "filters sub and up": lambda: encode_png(noise_picture(3), 1, 2),
    "palette": lambda: encode_mode("P"),
    "one bit": lambda: encode_mode("1"),
    "sixteen bits": lambda: encode_mode("I;16"),
    "transparent colour": lambda: encode_mode("RGB", transparency=(1, 2, 3)),
    "grey and alpha": lambda: encode_mode("LA"),
    "small": lambda: encode_png(noise_picture(1)[:50, :50], 1),
    "interlaced": lambda: with_header(encode_png(noise_picture(1), 1), interlaced=1),
    "wrong checksum": lambda: flip_bits(encode_png(noise_picture(1), 1), FIRST_CHUNK + 10, 1),
    "too few rows": lambda: with_header(encode_png(noise_picture(1), 1), height=111),
    "too many rows": lambda: with_header(encode_png(noise_picture(1), 1), height=109),
    "no zlib": lambda: with_pixel_data(b"no zlib"),
    "truncated zlib": lambda: with_pixel_data(zlib.compress(bytes(111 * 130))[:-2]),
}


@pytest.mark.parametrize("name", UNUSUAL_PNGS)
def test_decode_unusual_png_is_decoded_as_by_opencv(name: str) -> None:
    assert is_decoded_as_by_opencv(UNUSUAL_PNGS[name]())


@settings(deadline=None)
@given(
    channels=st.sampled_from([1, 3, 4]),
    filters=st.sampled_from([(0,), (1,), (2,), (2, 1)]),
    position=st.floats(0, 0.999),
    bit=st.integers(0, 7),
)
def test_decode_png_with_flipped_bit_is_decoded_as_by_opencv(
    channels: int, filters: tuple[int, ...], position: float, bit: int
) -> None:
    file = encode_png(noise_picture(channels), *filters)
    damaged = flip_bits(file, 8 + int(position * (len(file) - 8)), 1 << bit)
    with contextlib.suppress(TruncatedImageError, ImageTooLargeError):
        assert is_decoded_as_by_opencv(strip_ancillary_chunks(damaged))


@pytest.mark.parametrize("name", decompression_bombs.oversized_files())
def test_decode_oversized_file_raises_image_too_large(name: str) -> None:
    with pytest.raises(ImageTooLargeError):
        images.decode(decompression_bombs.oversized_files()[name])


def test_decode_heic_without_its_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(NotAnImageError, match="digits\\[heif\\]"):
        images.decode(valid_files()["HEIF"])


@pytest.mark.parametrize("name", decompression_bombs.malformed_files())
def test_decode_malformed_file_raises_image_error(name: str) -> None:
    with pytest.raises((NotAnImageError, TruncatedImageError)):
        images.decode(decompression_bombs.malformed_files()[name])


@pytest.mark.parametrize("name", decompression_bombs.non_finite_files())
def test_decode_non_finite_pixels_raise_pixel_value_error(name: str) -> None:
    with pytest.raises(PixelValueError):
        images.decode(decompression_bombs.non_finite_files()[name])


def test_decode_progressive_jpeg_is_limited_to_64_scans() -> None:
    repeats = 64 - progressive_jpeg(0, side=1000).count(b"\xff\xda")
    assert images.decode(progressive_jpeg(repeats, side=1000)).shape == (500, 500)
    with pytest.raises(ImageTooLargeError, match="65 scans"):
        images.decode(progressive_jpeg(repeats + 1, side=1000))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None)
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
    with contextlib.suppress(ImageError):
        assert images.decode(bytes(data), max_pixels=50_000).dtype == np.uint8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_decode_tiff_of_any_tag_value_returns_pixels_or_raises_image_error() -> None:
    file = valid_files()["TIFF"]
    (directory,) = struct.unpack_from("<I", file, 4)
    for entry in range(struct.unpack_from("<H", file, directory)[0]):
        for value in (0, 1, 2**16 - 1, 2**31, 2**32 - 1):
            data = bytearray(file)
            struct.pack_into("<I", data, directory + 2 + 12 * entry + 8, value)
            with contextlib.suppress(ImageError):
                assert images.decode(bytes(data), max_pixels=50_000).dtype == np.uint8
