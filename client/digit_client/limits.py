"""What an image file may ask of its decoder: a few bytes can ask for gigabytes or minutes."""

import struct

from digit_client.errors import ImageTooLargeError, NotAnImageError

# Cameras and editors write ten or so; two or three pictures and their thumbnails may be in one file.
_MOST_SCANS = 64
_TILES = range(322, 326)


def check_size(width: int, height: int, most: int) -> None:
    """Raises ImageTooLargeError where a picture has more than `most` pixels."""
    if width * height > most:
        raise ImageTooLargeError(f"the image has {width}×{height} pixels; at most {most:,} are decoded")


def check_scans(jpeg: bytes) -> None:
    """Raises ImageTooLargeError where a progressive JPEG goes over its picture too often.

    A scan that changes nothing is a few bytes, and takes as long as any other.
    """
    scans = jpeg.count(b"\xff\xda")
    if scans > _MOST_SCANS:
        raise ImageTooLargeError(f"the image comes in {scans:,} scans; at most {_MOST_SCANS} are decoded")


def check_strips(tiff: bytes) -> None:
    """Raises NotAnImageError for a TIFF in tiles: of a picture of one pixel they may have gigabytes.

    The tags are read here, since Pillow and the library that it decodes with differ on tags that come twice.
    """
    order = "<" if tiff.startswith(b"II") else ">"
    if tiff[2:4] not in (b"*\0", b"\0*") or len(tiff) < 8:
        raise NotAnImageError("of TIFF, only what is smaller than four gigabytes is read")
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    entries = tiff[at + 2 : at + 2 + 12 * count]
    if any(tag in _TILES for tag, _ in struct.iter_unpack(f"{order}H10s", entries)):
        raise NotAnImageError("of TIFF, only pictures in strips are read, none in tiles")
