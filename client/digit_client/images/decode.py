"""Decoding of image files with bounded memory and time."""

import io
import struct

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from digit_client._exceptions import ImageTooLargeError, NotAnImageError, PixelValueError, TruncatedImageError
from digit_client._inputs import PNG_SIGNATURE, Pixels, to_uint8, to_uint8_image
from digit_client.images import scaling

MAX_PIXELS = 16_000_000
"""The most pixels that are decoded. A JPEG may have four times as many: it is decoded at a reduced size."""

# Pillow knows many more, one of which starts a program.
_OTHERS = ("BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
# In pixels: photographs are decoded no larger than they need be to see a thin pen's line.
_JPEG_SIDE = 1000


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Open an image file: PNG, JPEG, GIF, BMP, WebP, TIFF or PPM.

    Its size is checked before its pixels are decoded. A JPEG comes at a half, a quarter or an eighth of its
    size where that is enough to find a digit on it. EXIF orientation is applied; of several frames the first
    is taken. Raises NotAnImageError, TruncatedImageError, ImageTooLargeError or PixelValueError.
    """
    # The format of nearly all drawings, which Pillow takes twice as long to read.
    return _decode_png(data, max_pixels) if data.startswith(PNG_SIGNATURE) else _decode_any(data, max_pixels)


def _decode_png(data: bytes, max_pixels: int) -> Pixels:
    file = strip_ancillary_chunks(data)
    width, height = struct.unpack_from(">II", file, 16)
    check_size(width, height, max_pixels)
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise TruncatedImageError("the image file ends early or is damaged")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return to_uint8_image(np.asarray(image))


def _decode_any(data: bytes, max_pixels: int) -> Pixels:
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_OTHERS)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"the image has more than the {max_pixels:,} pixels that are decoded"
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise NotAnImageError("the data is in no image format that is read") from error
    try:
        _bound(image, data, max_pixels)
        ImageOps.exif_transpose(image, in_place=True)
        return _to_pixels(image)
    except (OSError, ValueError, TypeError, SyntaxError, struct.error, EOFError) as error:
        raise TruncatedImageError("the image file ends early or is damaged") from error


def _bound(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """See that it can be decoded within the limits, a JPEG at a reduced size."""
    if image.format in ("JPEG", "MPO"):
        check_size(*image.size, 4 * max_pixels)
        check_scans(data)
        image.draft(None, _jpeg_size(*image.size))
    elif image.format == "TIFF":
        check_strips(data)
    # One that is long and narrow may not be reduced.
    check_size(*image.size, max_pixels)


def _jpeg_size(width: int, height: int) -> tuple[int, int]:
    """To no less than this a JPEG's decoder may reduce it, which can divide by two, four and eight."""
    factor = scaling.factor((width, height))
    # What it would be reduced by later on, as far as it can.
    by = factor & -factor
    return max(1, min(_JPEG_SIDE, width // by)), max(1, min(_JPEG_SIDE, height // by))


def _to_pixels(image: Image.Image) -> Pixels:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float32)
        if not np.isfinite(values).all():
            raise PixelValueError("a pixel is not a finite number")
        return to_uint8((values * (255 / max(float(values.max()), 1e-6))).clip(0, 255))
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    if has_alpha:
        return np.asarray(image.convert("RGBA"))
    mode = "L" if image.mode in ("1", "L") else "RGB"
    # What is of the mode already would be copied.
    return np.asarray(image if image.mode == mode else image.convert(mode))


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
