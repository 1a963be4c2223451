"""Files: decoding with bounded memory and time. Limits are checked before pixels are decoded."""

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from digit_core.errors import (
    ImageTooLargeError,
    NotAnImageError,
    PixelValueError,
    TruncatedImageError,
    how_to_install,
)
from digit_core.images import scaling
from digit_core.inputs import PNG_SIGNATURE, Pixels, media_type, to_uint8, to_uint8_image

MAX_PIXELS = 16_000_000
"""Largest number of pixels of a file; a JPEG, which is decoded downscaled, may have four times as many."""

# Allow list: Pillow reads many more formats. It runs Ghostscript for EPS, and an AVIF whose header says 64×64
# may make it decode 268 megapixels.
_PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
# Largest number of start-of-scan markers in a JPEG. Cameras and editors write about ten per picture; a file
# may hold two or three pictures and their thumbnails.
_MAX_SCANS = 64
# EXIF orientations that swap width and height.
_SIDEWAYS = range(5, 9)
_TIFF_TILE_TAGS = range(322, 326)
_PNG_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}

_DAMAGED = "the image file ends early or is damaged"
_DAMAGES = (OSError, ValueError, TypeError, SyntaxError, struct.error, EOFError, RuntimeError)
"""Errors of Pillow about a damaged file."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Image file of which only the header has been read.

    `size` is height and width in pixels, EXIF orientation applied; a large JPEG's array is smaller, since it
    is decoded downscaled. `cost` is the number of pixels to decode; those of a downscaled JPEG count a
    quarter. `decode` returns the pixels, or raises TruncatedImageError or PixelValueError.
    """

    size: tuple[int, int]
    cost: int
    decode: Callable[[], Pixels]


def open_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side: int | None = None,
    exif: bool = True,
    grey: bool = False,
) -> ImageFile:
    """Open an image file: PNG, JPEG, GIF, BMP, WebP, TIFF, PPM, or with the extra `heif` HEIC.

    A JPEG is decoded at a half, a quarter or an eighth of its size if it keeps the pixels of its page;
    with `min_side`, if both sides keep at least this number of pixels. EXIF orientation is applied
    unless `exif` is False; only the first frame is decoded. With `grey`, a JPEG is decoded without its
    colours, for a quarter of the time. Raise NotAnImageError, TruncatedImageError or ImageTooLargeError.
    """
    # OpenCV decodes PNG, the format of most drawings, twice as fast as Pillow.
    if data.startswith(PNG_SIGNATURE):
        file = strip_ancillary_chunks(data)
        width, height = struct.unpack_from(">II", file, 16)
        _check_size(width, height, max_pixels)
        return ImageFile((height, width), width * height, partial(_decode_png, file))
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_formats(data))
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"the image has too many pixels; at most {max_pixels:,} are decoded"
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, RuntimeError) as error:
        formats = ", ".join(("PNG", *_PILLOW_FORMATS, "HEIC"))
        raise NotAnImageError(f"the data is in no supported image format; supported: {formats}") from error
    try:
        width, height = image.size
        cost = 0
        if image.format in ("JPEG", "MPO"):
            cost = _check_jpeg(data, image.size, max_pixels)
            factor = scaling.downscale_factor(image.size, scaling.PAGE_SIDE)
            sides = (min_side or max(1, width // factor), min_side or max(1, height // factor))
            image.draft("L" if grey else None, sides)
        elif image.format == "TIFF":
            _check_tiff(data)
        # The size is that of the draft.
        _check_size(*image.size, max_pixels)
        cost = max(cost, math.prod(image.size))
        is_sideways = exif and image.getexif().get(ExifTags.Base.Orientation, 1) in _SIDEWAYS
    except _DAMAGES as error:
        raise TruncatedImageError(_DAMAGED) from error
    size = (width, height) if is_sideways else (height, width)
    return ImageFile(size, cost, partial(_decode_pillow, image, exif))


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image file. Raise the errors of `open_image` and of ImageFile's `decode`."""
    return open_image(data, max_pixels=max_pixels).decode()


def _formats(data: bytes) -> tuple[str, ...]:
    """Return Pillow's names of the formats that the data may have.

    Raise NotAnImageError for HEIC without the extra `heif`.
    """
    if media_type(data) != "image/heic":
        return _PILLOW_FORMATS
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise NotAnImageError(f"HEIC needs digits[heif]; {how_to_install('heif')}") from error
    register_heif_opener()
    return ("HEIF",)


def strip_ancillary_chunks(data: bytes) -> bytes:
    """Return a PNG file with only the chunks that define its pixels.

    A compressed text chunk of a few kilobytes may expand to megabytes, and a file may hold thousands of them.
    Raise TruncatedImageError if a chunk is cut off or the first or last one is missing: OpenCV would return
    the rows before the damage.
    """
    kept, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if name in _PNG_PIXEL_CHUNKS:
            kept.append(data[start:end])
        start = end
        if name == b"IEND":
            break
    stripped = b"".join(kept)
    if start > len(data) or stripped[12:16] != b"IHDR" or stripped[-8:-4] != b"IEND":
        raise TruncatedImageError(_DAMAGED)
    return stripped


def _decode_png(file: bytes) -> Pixels:
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise TruncatedImageError(_DAMAGED)
    if image.dtype != np.uint8:
        image = to_uint8_image(image)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return np.asarray(image, np.uint8)


def _decode_pillow(image: Image.Image, exif: bool) -> Pixels:
    try:
        if exif:
            ImageOps.exif_transpose(image, in_place=True)
        return _to_pixels(image)
    except _DAMAGES as error:
        raise TruncatedImageError(_DAMAGED) from error


def _check_jpeg(data: bytes, size: tuple[int, int], max_pixels: int) -> int:
    """Return the cost of a JPEG that is decoded downscaled. Raise ImageTooLargeError beyond the limits."""
    _check_size(*size, 4 * max_pixels)
    # An empty scan of a progressive JPEG, a few bytes, takes as long to decode as any other.
    if (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise ImageTooLargeError(f"the image has {scans:,} scans; at most {_MAX_SCANS} are decoded")
    return math.prod(size) // 4


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(f"the image has {width}×{height} pixels; at most {max_pixels:,} are decoded")


def _check_tiff(tiff: bytes) -> None:
    """Raise NotAnImageError for BigTIFF and tiled TIFF: a picture of one pixel may have a tile of gigabytes.

    The tags are parsed here because Pillow and libtiff differ on duplicate tags.
    """
    order = "<" if tiff.startswith(b"II") else ">"
    if tiff[2:4] not in (b"*\0", b"\0*") or len(tiff) < 8:
        raise NotAnImageError("BigTIFF is not supported; supported: TIFF of less than four gigabytes")
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    entries = tiff[directory + 2 : directory + 2 + 12 * count]
    if any(tag in _TIFF_TILE_TAGS for tag, _ in struct.iter_unpack(f"{order}H10s", entries)):
        raise NotAnImageError("a TIFF in tiles is not supported; supported: TIFF in strips")


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
    # convert() to the same mode would copy the pixels.
    return np.asarray(image if image.mode == mode else image.convert(mode))
