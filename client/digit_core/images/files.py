"""Files: decoding with bounded memory and time. Limits are checked before pixels are decoded.

Opening a file takes at most 30 ms for a megabyte. Decoding takes about two seconds for the largest permitted
file; its cost, from its pixels and bytes, tells before.
"""

import io
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from digit_core.errors import (
    ImageTooLargeError,
    NotAnImageError,
    PixelValueError,
    TruncatedImageError,
)
from digit_core.images import scaling, stripping
from digit_core.images.stripping import DAMAGED
from digit_core.inputs import PNG_SIGNATURE, Pixels, foreign_format, media_type, to_uint8, to_uint8_image

MAX_PIXELS = 16_000_000
"""Largest number of pixels of a file; a JPEG, which is decoded downscaled, may have four times as many."""

BYTE_COST = 2
"""Cost of a byte of a file, in pixels. A file whose bytes alone cost much takes long to open, too."""

# Allow list: Pillow reads many more formats. It runs Ghostscript for EPS, and an AVIF whose header says 64×64
# may make it decode 268 megapixels.
_PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
# Largest number of start-of-scan markers in a JPEG. Cameras and editors write about ten per picture; a file
# may hold two or three pictures and their thumbnails.
_MAX_SCANS = 64
# Cost of a pixel of TIFF: floats, four inks and progressive JPEG take that much longer than others.
_TIFF_COST = 4
# Codecs that Pillow has in Python take about a microsecond for each byte or pixel.
_PYTHON_CODECS = ("ppm_plain", "ppm", "bmp_rle")
# Cost of a byte of PNG, which may inflate to 1,032 bytes.
_PNG_BYTE_COST = 64
# Largest PNG that is decoded without a count of the bytes to which it inflates: a bomb takes a quarter of a
# second, and the count would take half as long as decoding.
_UNCOUNTED_BYTES = 262_144
# Bytes that a PNG may have beyond those of its pixels.
_SPARE_BYTES = 8192
# Bytes of the largest EXIF in a JPEG. Pillow parses it in Python.
_MAX_EXIF = 65_536
# EXIF orientations that swap width and height, and that then mirror columns or rows.
_SIDEWAYS, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)

_DAMAGES = (OSError, ValueError, TypeError, SyntaxError, struct.error, EOFError, RuntimeError)
"""Errors of Pillow about a damaged file."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Image file of which only the header has been read.

    `size` is height and width in pixels, EXIF orientation applied; a large JPEG's array is smaller, since it
    is decoded downscaled. `cost` is the time that decoding takes at most, in pixels of an ordinary picture: a
    million take about 30 ms. `decode` returns the pixels, or raises TruncatedImageError, PixelValueError, or
    ImageTooLargeError for a PNG that inflates to far more than its pixels.
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
    """Open an image file: PNG, JPEG, GIF, BMP, WebP, TIFF, binary PNM, or with the extra `heif` HEIC.

    A JPEG is decoded at a half, a quarter or an eighth of its size if it keeps the pixels of its page;
    with `min_side`, if both sides keep at least this number of pixels. EXIF orientation is applied
    unless `exif` is False; only the first frame is decoded. With `grey`, a JPEG is decoded without its
    colours, for a quarter of the time. Raise NotAnImageError, TruncatedImageError or ImageTooLargeError.
    """
    if data.startswith(PNG_SIGNATURE):
        return _open_png(stripping.strip_png(data), max_pixels)
    try:
        if is_jpeg := data.startswith(b"\xff\xd8\xff"):
            data = stripping.strip_jpeg(data)
        elif data.startswith((b"II", b"MM")):
            data = stripping.strip_tiff(data)
    except struct.error as error:
        raise TruncatedImageError(DAMAGED) from error
    try:
        # The segments of a stripped JPEG are counted already.
        file = io.BytesIO(data) if is_jpeg else _Reader(data)
        image = Image.open(file, formats=_formats(data))
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"the image has too many pixels; at most {max_pixels:,} are decoded"
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, RuntimeError) as error:
        formats = ", ".join(("PNG", *_PILLOW_FORMATS, *(["HEIC"] if find_spec("pillow_heif") else [])))
        name = foreign_format(data)
        message = f"this is {name}" if name else "the data is in no supported image format"
        raise NotAnImageError(f"{message}; supported: {formats}") from error
    if image.tile and image.tile[0].codec_name in _PYTHON_CODECS:
        raise NotAnImageError(
            "plain PNM, PNM with a maximum other than 255 or 65535, and BMP in runs (RLE) are not supported: "
            "save the picture as PNG"
        )
    try:
        width, height = image.size
        cost = len(data) * BYTE_COST
        if is_jpeg:
            cost = max(cost, _check_jpeg(data, image.size, max_pixels))
            factor = scaling.downscale_factor(image.size, scaling.PAGE_SIDE)
            sides = (min_side or max(1, width // factor), min_side or max(1, height // factor))
            image.draft("L" if grey else None, sides)
        # The size is that of the draft.
        _check_size(*image.size, max_pixels)
        cost = max(cost, math.prod(image.size) * (_TIFF_COST if image.format == "TIFF" else 1))
        orientation = _read_orientation(image) if exif else 1
    except _DAMAGES as error:
        raise TruncatedImageError(DAMAGED) from error
    size = (width, height) if orientation in _SIDEWAYS else (height, width)
    return ImageFile(size, cost, partial(_decode_pillow, image, orientation))


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
        raise NotAnImageError(
            "HEIC is not decoded here: save the picture as JPEG (on an iPhone, Settings, Camera, Formats, "
            "Most Compatible), or have the operator install `digits[heif]`"
        ) from error
    register_heif_opener()
    return ("HEIF",)


class _Reader(io.BytesIO):
    """File of a bounded number of reads: Pillow reads headers and comments in small pieces."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > stripping.MAX_PARTS:
            raise stripping.too_many_parts()
        return super().read(size)


def _open_png(file: bytes, max_pixels: int) -> ImageFile:
    """Open a stripped PNG. Raise ImageTooLargeError if it has far more bytes than its pixels need."""
    width, height, depth = struct.unpack_from(">IIB", file, 16)
    _check_size(width, height, max_pixels)
    # Twice four channels and a row's filter: an interlaced picture has up to twice as many bytes as pixels.
    inflated = height * (2 + width * depth)
    if len(file) > inflated + _SPARE_BYTES:
        raise _too_much_data(width, height)
    # A row takes as long as two pixels more.
    cost = max(height * (2 + width * depth // 8), len(file) * _PNG_BYTE_COST)
    return ImageFile((height, width), cost, partial(_decode_png, file, inflated))


def _decode_png(file: bytes, inflated: int) -> Pixels:
    """Decode a stripped PNG. Raise ImageTooLargeError if it inflates to more than this number of bytes.

    libpng inflates also what follows the last row.
    """
    try:
        if len(file) > _UNCOUNTED_BYTES:
            _check_inflated(file, inflated)
    except zlib.error as error:
        raise TruncatedImageError(DAMAGED) from error
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise TruncatedImageError(DAMAGED)
    if image.dtype != np.uint8:
        image = to_uint8_image(image)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return np.asarray(image, np.uint8)


def _check_inflated(file: bytes, inflated: int) -> None:
    """Raise ImageTooLargeError if the PNG inflates to more than this number of bytes."""
    inflater, size, start = zlib.decompressobj(), 0, len(PNG_SIGNATURE)
    while start < len(file) and not inflater.eof:
        length, name = struct.unpack_from(">I4s", file, start)
        content = file[start + 8 : start + 8 + length] if name == b"IDAT" else b""
        # Inflating small pieces bounds the memory.
        for piece in range(0, len(content), _SPARE_BYTES):
            size += len(inflater.decompress(content[piece : piece + _SPARE_BYTES]))
            if size > inflated:
                raise _too_much_data(*struct.unpack_from(">II", file, 16))
            if inflater.eof:
                break
        start += length + 12


def _too_much_data(width: int, height: int) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"the image file has far more data than its {width}×{height} pixels need: save it again as PNG"
    )


def _decode_pillow(image: Image.Image, orientation: int) -> Pixels:
    try:
        pixels = _to_pixels(image)
    except _DAMAGES as error:
        raise TruncatedImageError(DAMAGED) from error
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _MIRRORED:
        pixels = pixels[:, ::-1]
    if orientation in _UPSIDE_DOWN:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _read_orientation(image: Image.Image) -> int:
    """Return the orientation of EXIF or XMP, 1 for TIFF, which Pillow turns itself."""
    if image.format == "TIFF":
        return 1
    if (size := len(image.info.get("exif") or b"")) > _MAX_EXIF:
        raise ImageTooLargeError(
            f"the image has {size:,} bytes of EXIF, but at most {_MAX_EXIF:,} are read: save it without EXIF"
        )
    orientation: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation


def _check_jpeg(data: bytes, size: tuple[int, int], max_pixels: int) -> int:
    """Return the cost of a JPEG that is decoded downscaled. Raise ImageTooLargeError beyond the limits."""
    # An empty scan of a progressive JPEG, a few bytes, takes as long to decode as any other.
    if (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise ImageTooLargeError(f"the image has {scans:,} scans; at most {_MAX_SCANS} are decoded")
    _check_size(*size, max_pixels * (4 if scans <= _MAX_SCANS // 4 else 1))
    return math.prod(size) * scans // 4


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(f"the image has {width}×{height} pixels; at most {max_pixels:,} are decoded")


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
