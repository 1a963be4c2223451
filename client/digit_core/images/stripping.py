"""Stripping of image files: only the parts that define the pixels reach a library.

Metadata is the largest part of a hostile file: Pillow parses it in Python, libpng inflates it.
"""

import struct

from digit_core.errors import ImageTooLargeError, NotAnImageError, TruncatedImageError
from digit_core.inputs import PNG_SIGNATURE

DAMAGED = "the image file ends early or is damaged: copy or download it again"
"""Message of a file whose parts don't fit together."""

MAX_PARTS = 10_000
"""Largest number of chunks, segments, strips or reads of a file: each takes about a microsecond of Python.

Writers of PNG make chunks of eight kilobytes, a thousand for the largest body of a request.
"""

_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IEND"}
_FILL, _SCAN = 0xFF, 0xDA
# Frames and their tables; JFIF in APP0, EXIF and XMP in APP1, for the orientation, Adobe's colours in APP14.
_JPEG_TABLES = {*range(0xC0, 0xD0), 0xDB, 0xDD} - {0xC8}
_JPEG_METADATA = {0xE0, 0xE1, 0xEE}
_STRIP_OFFSETS = 273
# Size, samples, compression, strips, orientation, planes; fax, predictor, palette, alpha, YCbCr.
_TIFF_TAGS = {*range(256, 260), 262, 266, _STRIP_OFFSETS, 274, 277, 278, 279, 284}
_TIFF_TAGS |= {292, 293, 317, 320, 338, 339, 347, *range(529, 533)}
_RATIONALS = (5, 10)
# Pillow makes a fraction in Python of each rational; YCbCr takes at most six.
_MAX_RATIONALS = 6


def too_many_parts() -> ImageTooLargeError:
    """Return the error of a file with more than MAX_PARTS parts."""
    return ImageTooLargeError(
        f"the image file has more than {MAX_PARTS:,} parts, which take too long to read: save it again as PNG"
    )


def strip_png(data: bytes) -> bytes:
    """Return a PNG file with only the chunks that define its pixels, each but IDAT once.

    A compressed text chunk of a few kilobytes may expand to megabytes, and a file may hold thousands of them.
    Raise TruncatedImageError if a chunk is cut off or the first or last one is missing: OpenCV would return
    the rows before the damage.
    """
    kept: dict[bytes | int, bytes] = {}
    start = len(PNG_SIGNATURE)
    for _ in range(MAX_PARTS):
        if start + 12 > len(data):
            raise TruncatedImageError(DAMAGED)
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if name == b"IDAT":
            kept[start] = data[start:end]
        elif name in _PNG_CHUNKS and name not in kept:
            kept[name] = data[start:end]
        start = end
        if name == b"IEND":
            break
    else:
        raise too_many_parts()
    stripped = PNG_SIGNATURE + b"".join(kept.values())
    if start > len(data) or stripped[12:16] != b"IHDR":
        raise TruncatedImageError(DAMAGED)
    return stripped


def strip_jpeg(data: bytes) -> bytes:
    """Return a JPEG file with only its tables, scans, and the first EXIF and XMP.

    Raise struct.error if it has no scan.
    """
    kept: dict[object, bytes | memoryview] = {0: data[:2]}
    start = 2
    for _ in range(MAX_PARTS):
        prefix, marker, length = struct.unpack_from(">BBH", data, start)
        if prefix != _FILL or not 0xC0 <= marker < _FILL or 0xD0 <= marker < _SCAN:
            # Fill bytes, and markers without a length: decoders look for the next marker.
            start = data.find(_FILL, start + 1)
            continue
        end = start + 2 + length
        if marker == _SCAN:
            kept[start] = memoryview(data)[start:]
            return b"".join(kept.values())
        if marker in _JPEG_TABLES:
            kept[start] = data[start:end]
        elif marker in _JPEG_METADATA:
            # The first four bytes of the content name it.
            kept.setdefault((marker, data[start + 4 : start + 8]), data[start:end])
        start = end
    raise too_many_parts()


def strip_tiff(data: bytes) -> bytes:
    """Return a TIFF file of one picture, with only the tags that define its pixels, each once.

    Raise NotAnImageError for BigTIFF and tiled TIFF: a picture of one pixel may have a tile of gigabytes.
    Raise struct.error if the tags are cut off.
    """
    order = "<" if data.startswith(b"II") else ">"
    if data[2:4] not in (b"*\0", b"\0*"):
        raise NotAnImageError("BigTIFF is not supported; supported: TIFF of less than four gigabytes")
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    kept: dict[int, tuple[int, int, int, bytes]] = {}
    for entry in struct.iter_unpack(f"{order}HHI4s", data[start + 2 : start + 2 + 12 * count]):
        tag, kind, values, _ = entry
        if tag not in _TIFF_TAGS or (kind in _RATIONALS and values > _MAX_RATIONALS):
            continue
        if values > MAX_PARTS:
            raise too_many_parts()
        kept.setdefault(tag, entry)
    if _STRIP_OFFSETS not in kept:
        raise NotAnImageError("a TIFF in tiles is not supported; supported: TIFF in strips")
    entries = [struct.pack(f"{order}HHI4s", *kept[tag]) for tag in sorted(kept)]
    # The offset of the next picture is 0: there is none.
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(entries) + bytes(4)
    return data[:start] + directory + data[start + len(directory) :]
