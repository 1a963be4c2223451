"""PNG files: what of them is opened, and those that need no library for it."""

import struct

import cv2
import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from digit_client.errors import TruncatedImageError
from digit_client.grey import in_grey

SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""What each begins with."""

_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
# By the colour type: grey, RGB and RGBA.
_CHANNELS = {0: 1, 2: 3, 6: 4}
_BYTES = (8, 0, 0, 0)
"""How many bits a number has, and that it is compressed, filtered and ordered as nearly all are."""
_DIFFERENCES = 1
"""The filter of a row whose numbers are what each has more than the one before; 0 is no filter."""
# Of few pixels OpenCV is as fast; of many the sums take memory.
_FEWEST, _MOST = 10_000, 1_000_000


def picture(data: bytes) -> bytes:
    """A PNG file with nothing but its picture: each of its texts may be compressed a thousandfold as well.

    Raises TruncatedImageError where it is not whole: OpenCV would show what it could read.
    """
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name in _PICTURE:
            kept.append(data[at:end])
        at = end
        if name == b"IEND":
            break
    found = b"".join(kept)
    if at > len(data) or found[12:16] != b"IHDR" or found[-8:-4] != b"IEND":
        raise TruncatedImageError("the image file ends early or is damaged")
    return found


def pixels(picture: bytes) -> NDArray[np.uint8] | None:
    """What OpenCV reads in a file that `picture` gave, three times as fast: grey, RGB or RGBA.

    For rows that are not filtered or have differences, as browsers write a canvas. None for all others, and
    for what is damaged.
    """
    width, height, *kind = struct.unpack_from(">IIBxBBB", picture, 16)
    channels = _CHANNELS.get(picture[25])
    if tuple(kind) != _BYTES or channels is None or not _FEWEST <= width * height <= _MOST:
        return None
    inflated = _inflated(picture, height * (1 + width * channels))
    if inflated is None:
        return None
    filters, rows = np.split(np.frombuffer(inflated, np.uint8).reshape(height, -1), [1], axis=1)
    if filters.max() > _DIFFERENCES:
        return None
    shape = (height, width, channels) if channels > 1 else (height, width)
    found = in_grey(np.ascontiguousarray(rows).reshape(shape))
    are_differences = filters[:, 0] == _DIFFERENCES
    if are_differences.all():
        return _added_up(found)
    found[are_differences] = _added_up(found)[are_differences]
    return found


def _added_up(differences: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each number with those before it in its row, modulo 256."""
    height, width = differences.shape[:2]
    channels = differences.size // (height * width)
    # Of all rows above as well, so that the next sum less the one above it is its row's.
    sums = np.asarray(cv2.integral(differences)).astype(np.uint8).reshape(height + 1, -1)
    return (sums[1:, channels:] - sums[:-1, channels:]).reshape(differences.shape)


def _inflated(picture: bytes, size: int) -> bytes | None:
    """The bytes of its rows, `size` of them; None where it is damaged or has other chunks."""
    parts, at = [], len(SIGNATURE)
    while at < len(picture):
        (length,) = struct.unpack_from(">I", picture, at)
        end = at + 8 + length
        named = picture[at + 4 : end]
        if zlib_ng.crc32(named) != int.from_bytes(picture[end : end + 4]):
            return None
        if named.startswith(b"IDAT"):
            parts.append(named[4:])
        elif not named.startswith((b"IHDR", b"IEND")):
            return None
        at = end + 4
    inflater = zlib_ng.decompressobj()
    try:
        # With one more it can tell that there is no more.
        inflated = inflater.decompress(b"".join(parts), size + 1)
    except zlib_ng.error:  # type: ignore[misc]
        return None
    return inflated if len(inflated) == size and inflater.eof else None
