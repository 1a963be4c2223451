"""A guard for PNG decoders: pixels alone are passed on, and incomplete files are refused."""

import struct

from digit_client.arrays import PNG_SIGNATURE
from digit_client.errors import TruncatedImageError

_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


def strip_ancillary_chunks(data: bytes) -> bytes:
    """Reduce a PNG file to the chunks that its pixels need.

    A compressed text chunk of a few kilobytes may expand to megabytes, and a file may hold thousands of them.
    Raises TruncatedImageError where a chunk is cut off or the first or last one is missing: OpenCV would
    return the rows that it could read.
    """
    kept, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if name in _PIXEL_CHUNKS:
            kept.append(data[start:end])
        start = end
        if name == b"IEND":
            break
    stripped = b"".join(kept)
    if start > len(data) or stripped[12:16] != b"IHDR" or stripped[-8:-4] != b"IEND":
        raise TruncatedImageError("the image file ends early or is damaged")
    return stripped
