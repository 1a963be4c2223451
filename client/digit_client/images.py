"""Any picture of one digit as what the network saw in training: MNIST's uint8 [28, 28], light ink on dark.

`decode` opens a file, `normalise` finds the digit on it. Both are pure: bytes and arrays in, arrays out.
"""

import io
import struct

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from digit_client import limits, reduction
from digit_client.arrays import PNG_SIGNATURE, Pixels, as_pixels, rounded
from digit_client.errors import ImageTooLargeError, NotAnImageError, PixelValueError, TruncatedImageError
from digit_client.framing import SIDE, frame
from digit_client.grey import drop_redundant_channels
from digit_client.ink import find_ink
from digit_client.png import strip_ancillary_chunks

MAX_PIXELS = 16_000_000
"""The most pixels that are decoded. A JPEG may have four times as many: it is decoded at a reduced size."""

# The brightest pixel of a framed digit, at least; its longer side, in pixels; and where its centre of mass
# lies, give or take a rounding: so it is of all 70,000 of MNIST's.
_LIGHT = 128
_LONGER = (19, 20)
_MIDDLE = (13.45, 14.55)
_ONES, _PLACES = np.ones(SIDE, np.float32), np.arange(SIDE, dtype=np.float32)
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


def normalise(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Find the digit on a picture and frame it as MNIST's are: uint8 [28, 28], light ink on dark.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4], of bytes, of 16-bit integers, or of floats in 0..1 or
    0..255. A picture that is framed already comes back unchanged, one with dark ink on light inverted. Raises
    NoDigitError when nothing is drawn on it, ImageShapeError or PixelValueError when it is no picture.
    """
    pixels = drop_redundant_channels(as_pixels(image))
    if is_framed(pixels):
        return pixels
    # None but a small one is inverted, for a large one that takes a while.
    if pixels.shape == (SIDE, SIDE) and is_framed(255 - pixels):
        return 255 - pixels
    return frame(find_ink(pixels))


def is_framed(pixels: Pixels) -> bool:
    """Whether this is grey [28, 28] and a digit is on it as on all of MNIST's.

    Light on black, its longer side 20 pixels or 19, and its centre of mass in the middle.
    """
    if pixels.shape != (SIDE, SIDE) or cv2.norm(pixels, cv2.NORM_INF) < _LIGHT:
        return False
    if not _LONGER[0] <= max(cv2.boundingRect(pixels)[2:]) <= _LONGER[1]:
        return False
    moments = cv2.moments(pixels)
    row, column = moments["m01"] / moments["m00"], moments["m10"] / moments["m00"]
    return bool(_MIDDLE[0] <= row <= _MIDDLE[1] and _MIDDLE[0] <= column <= _MIDDLE[1])


def are_framed(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`is_framed` for each of many, [n, 28, 28], which takes less time than one after the other: bool [n]."""
    are_light = images.reshape(len(images), -1).max(axis=1) >= _LIGHT
    grey = images.astype(np.float32)
    # Of each its rows' sums, and its columns'.
    sums = np.stack((grey @ _ONES, _ONES @ grey))
    longer = _extents(sums > 0).max(axis=0)
    middles = sums @ _PLACES / np.maximum(sums.sum(axis=2), 1)
    are_central = ((middles >= _MIDDLE[0]) & (middles <= _MIDDLE[1])).all(axis=0)
    framed: NDArray[np.bool_] = are_light & (longer >= _LONGER[0]) & (longer <= _LONGER[1]) & are_central
    return framed


def _extents(inked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """From the first to the last that is inked: bool [..., 28] becomes [...]."""
    return np.asarray(SIDE - inked.argmax(axis=-1) - inked[..., ::-1].argmax(axis=-1))


def _decode_png(data: bytes, max_pixels: int) -> Pixels:
    file = strip_ancillary_chunks(data)
    width, height = struct.unpack_from(">II", file, 16)
    limits.check_size(width, height, max_pixels)
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise TruncatedImageError("the image file ends early or is damaged")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return as_pixels(np.asarray(image))


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
        limits.check_size(*image.size, 4 * max_pixels)
        limits.check_scans(data)
        image.draft(None, _jpeg_size(*image.size))
    elif image.format == "TIFF":
        limits.check_strips(data)
    # One that is long and narrow may not be reduced.
    limits.check_size(*image.size, max_pixels)


def _jpeg_size(width: int, height: int) -> tuple[int, int]:
    """To no less than this a JPEG's decoder may reduce it, which can divide by two, four and eight."""
    factor = reduction.factor((width, height))
    # What it would be reduced by later on, as far as it can.
    by = factor & -factor
    return max(1, min(_JPEG_SIDE, width // by)), max(1, min(_JPEG_SIDE, height // by))


def _to_pixels(image: Image.Image) -> Pixels:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float32)
        if not np.isfinite(values).all():
            raise PixelValueError("a pixel is not a finite number")
        return rounded((values * (255 / max(float(values.max()), 1e-6))).clip(0, 255))
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    if has_alpha:
        return np.asarray(image.convert("RGBA"))
    mode = "L" if image.mode in ("1", "L") else "RGB"
    # What is of the mode already would be copied.
    return np.asarray(image if image.mode == mode else image.convert(mode))
