"""PNG files, honest and damaged, through the guard and through `images.decode`."""

import contextlib
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from digit_client import images
from digit_client._exceptions import ImageError, ImageTooLargeError, PixelValueError, TruncatedImageError
from digit_client._inputs import PNG_SIGNATURE, Pixels, to_uint8_image
from digit_client.images.decode import strip_ancillary_chunks
from tests import bombs

HEADER = 8 + 12 + 13
"""Where the bytes of the first chunk after it begin."""


def opencv(file: bytes) -> Pixels | None:
    """OpenCV's pixels of the whole file as grey, RGB or RGBA bytes; None where it reads none."""
    read = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is None:
        return None
    return to_uint8_image(read if read.ndim == 2 else read[..., [2, 1, 0, 3][: read.shape[2]]])


def drawn(channels: int) -> Pixels:
    """A picture of 130×110 pixels."""
    noise = np.random.default_rng(channels).integers(0, 256, (110, 130, channels), np.uint8)
    return noise[..., 0] if channels == 1 else noise


def written(pixels: Pixels, *filters: int) -> bytes:
    """The picture as a PNG whose rows have these filters in turn, 0, 1 or 2."""
    height, width = pixels.shape[:2]
    channels = pixels.size // (height * width)
    rows = pixels.reshape(height, -1)
    beside, above = rows.copy(), rows.copy()
    beside[:, channels:] -= rows[:, :-channels]
    above[1:] -= rows[:-1]
    ways, kinds = (rows, beside, above), (filters * height)[:height]
    content = b"".join(bytes([kind]) + ways[kind][at].tobytes() for at, kind in enumerate(kinds))
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(bombs.chunk(*chunk) for chunk in chunks)


def test_strip_ancillary_chunks_keeps_pixels_alone() -> None:
    plain = bombs.png(28, 28)
    text = bombs.chunk(b"tEXt", b"Comment\0hello")
    assert strip_ancillary_chunks(bombs.png(28, 28, extra=text) + b"PK\3\4") == plain


@pytest.mark.parametrize("kept", [-1, -13, 40, 8])
def test_strip_ancillary_chunks_refuses_a_file_that_is_cut_off(kept: int) -> None:
    with pytest.raises(TruncatedImageError):
        strip_ancillary_chunks(bombs.png(28, 28)[:kept])


def test_strip_ancillary_chunks_refuses_a_file_without_pixels() -> None:
    with pytest.raises(TruncatedImageError):
        strip_ancillary_chunks(PNG_SIGNATURE + bombs.chunk(b"tEXt", b"Comment\0hello"))


@pytest.mark.parametrize("filters", [(0,), (1,), (1, 0, 0, 1, 1), (2,)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_rows_as_they_are_and_as_differences_are_read(channels: int, filters: tuple[int, ...]) -> None:
    picture = drawn(channels)
    file = written(picture, *filters)
    assert np.array_equal(images.decode(file), picture)
    assert same(file)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
def test_a_single_line_is_read(shape: tuple[int, int], kind: int) -> None:
    line = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.array_equal(images.decode(written(line, kind)), line)


@pytest.mark.parametrize("alpha", [255, 254, 0])
def test_what_shines_through_is_kept(alpha: int) -> None:
    picture = drawn(4)
    picture[..., 3] = alpha
    assert np.array_equal(images.decode(written(picture, 1)), picture)


def pillow(mode: str, **options: object) -> bytes:
    return bombs.saved(Image.fromarray(drawn(3)).convert(mode), "PNG", **options)


OTHERS: dict[str, Callable[[], bytes]] = {
    "filtered otherwise": lambda: pillow("RGB"),
    "filtered along some rows and from others to the next": lambda: written(drawn(3), 1, 2),
    "with a palette": lambda: pillow("P"),
    "of one bit": lambda: pillow("1"),
    "of sixteen bits": lambda: pillow("I;16"),
    "with a colour that is transparent": lambda: pillow("RGB", transparency=(1, 2, 3)),
    "with grey and alpha": lambda: pillow("LA"),
    "small": lambda: written(drawn(1)[:50, :50], 1),
    "interlaced": lambda: headed(written(drawn(1), 1), interlaced=1),
    "with a checksum that is wrong": lambda: flipped(written(drawn(1), 1), HEADER + 10, 1),
    "with too few rows": lambda: headed(written(drawn(1), 1), height=111),
    "with too many rows": lambda: headed(written(drawn(1), 1), height=109),
    "not compressed as it should be": lambda: recompressed(b"no zlib"),
    "cut off where it is compressed": lambda: recompressed(zlib.compress(bytes(111 * 130))[:-2]),
}


def flipped(file: bytes, at: int, bits: int) -> bytes:
    return file[:at] + bytes([file[at] ^ bits]) + file[at + 1 :]


def headed(file: bytes, *, height: int = 110, interlaced: int = 0) -> bytes:
    header = file[16:20] + struct.pack(">I", height) + file[24:28] + bytes([interlaced])
    return file[:8] + bombs.chunk(b"IHDR", header) + file[HEADER:]


def recompressed(content: bytes) -> bytes:
    return written(drawn(1), 1)[:HEADER] + bombs.chunk(b"IDAT", content) + bombs.chunk(b"IEND", b"")


@pytest.mark.parametrize("name", OTHERS)
def test_all_else_is_what_opencv_reads(name: str) -> None:
    assert same(OTHERS[name]())


@settings(deadline=None)
@given(
    channels=st.sampled_from([1, 3, 4]),
    filters=st.sampled_from([(0,), (1,), (2,), (2, 1)]),
    place=st.floats(0, 0.999),
    bit=st.integers(0, 7),
)
def test_so_is_what_is_damaged(channels: int, filters: tuple[int, ...], place: float, bit: int) -> None:
    file = written(drawn(channels), *filters)
    with contextlib.suppress(TruncatedImageError, ImageTooLargeError):
        assert same(strip_ancillary_chunks(flipped(file, 8 + int(place * (len(file) - 8)), 1 << bit)))


def same(file: bytes) -> bool:
    """Whether what is read is what OpenCV reads, be it nothing."""
    expected = opencv(file)
    try:
        found = images.decode(file)
    except TruncatedImageError:
        return expected is None
    return expected is not None and np.array_equal(found, expected)


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
