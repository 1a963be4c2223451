"""PNG files: what of one is opened, and its pixels, those of most drawings sooner than OpenCV has them."""

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from digit_client.arrays import PNG_SIGNATURE
from digit_client.errors import TruncatedImageError
from digit_client.grey import in_grey

_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
# By the colour type: grey, RGB and RGBA.
_CHANNELS = {0: 1, 2: 3, 6: 4}
_BYTES = (8, 0, 0, 0)
"""How many bits a number has, and that it is compressed, filtered and ordered as nearly all are."""
_BESIDE, _ABOVE = 1, 2
"""Filters of a row: that its numbers are what each has more than the one beside, or above, it. None is 0."""
_HEAD, _END = 33, 12
"""Bytes until the first chunk of pixels, where no other is before it, and of the last chunk."""
# Of few pixels OpenCV is as fast; of many the sums take memory.
_FEWEST, _MOST = 10_000, 1_000_000


def picture(data: bytes) -> bytes:
    """A PNG file with nothing but its picture: each of its texts may be compressed a thousandfold as well.

    Raises TruncatedImageError where it is not whole: OpenCV would show what it could read.
    """
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
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


def pixels(file: bytes) -> NDArray[Any]:
    """What is in a file that `picture` gave, as OpenCV reads it: grey, RGB or RGBA, of 8 or 16 bits.

    Of bytes in rows that are not filtered or hold differences along them, as OpenCV writes, or all from one
    to the next, as Chrome writes a canvas, it is there in half of the time, and without colours as grey.
    Raises TruncatedImageError where it is damaged.
    """
    width, height, *kind = struct.unpack_from(">IIBxBBB", file, 16)
    channels = _CHANNELS.get(file[25])
    if tuple(kind) != _BYTES or channels is None or not _FEWEST <= width * height <= _MOST:
        return _by_opencv(file)
    inflated = _inflated(file, height * (1 + width * channels))
    if inflated is None:
        return _by_opencv(file)
    rows = np.frombuffer(inflated, np.uint8).reshape(height, -1)
    filters, shape = rows[:, 0], (height, width, channels) if channels > 1 else (height, width)
    is_down = bool((filters == _ABOVE).all())
    if filters.max() > _BESIDE and not is_down:
        return _by_opencv(_stored(file, inflated))
    found = in_grey(rows[:, 1:].copy().reshape(shape))
    if is_down or (filters == _BESIDE).all():
        return _added_up(found, down=is_down)
    found[filters == _BESIDE] = _added_up(found)[filters == _BESIDE]
    return found


def _by_opencv(file: bytes) -> NDArray[Any]:
    found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise TruncatedImageError("the image file ends early or is damaged")
    if found.ndim == 3:
        found = cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA if found.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return np.asarray(found)


def _stored(file: bytes, inflated: bytes) -> bytes:
    """The file with its rows not compressed, which is what takes OpenCV most of its time."""
    named = b"IDAT" + zlib_ng.compress(inflated, 0)
    length, checksum = len(named) - 4, zlib_ng.crc32(named)
    return b"".join((file[:_HEAD], length.to_bytes(4), named, checksum.to_bytes(4), file[-_END:]))


def _added_up(differences: NDArray[np.uint8], *, down: bool = False) -> NDArray[np.uint8]:
    """Each number with all before it in its row, or above it, modulo 256."""
    height, width = differences.shape[:2]
    channels = differences.size // (height * width)
    # Of all that is above and before a pixel: from one sum to the next it is a column, or a row.
    sums = np.asarray(cv2.integral(differences)).astype(np.uint8).reshape(height + 1, -1)
    less = sums[1:, :-channels] if down else sums[:-1, channels:]
    return (sums[1:, channels:] - less).reshape(differences.shape)


def _inflated(file: bytes, size: int) -> bytes | None:
    """The bytes of its rows, `size` of them; None where it is damaged or has other chunks."""
    parts, at = [], len(PNG_SIGNATURE)
    while at < len(file):
        (length,) = struct.unpack_from(">I", file, at)
        end = at + 8 + length
        named = file[at + 4 : end]
        if zlib_ng.crc32(named) != int.from_bytes(file[end : end + 4]):
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
