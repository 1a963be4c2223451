"""Any picture of one digit as what the network saw in training: MNIST's uint8 [28, 28], light ink on dark.

`decode` opens a file, `normalise` finds the digit on it. Both are pure: bytes and arrays in, arrays out.
"""

import io
import struct

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from digit_client import limits
from digit_client.arrays import Pixels, as_pixels, rounded
from digit_client.errors import ImageTooLargeError, NotAnImageError, PixelValueError, TruncatedImageError
from digit_client.framing import SIDE, frame
from digit_client.ink import find_ink

MAX_PIXELS = 16_000_000
"""The most pixels that are decoded. A JPEG may have four times as many: it is decoded at a reduced size."""

# Where the pixels along a picture's four sides are, those at the corners twice.
_PLACES = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
_BORDER = np.concatenate((_PLACES[0], _PLACES[-1], _PLACES[:, 0], _PLACES[:, -1]))
_PNG = b"\x89PNG\r\n\x1a\n"
# Pillow knows many more, one of which starts a program.
_OTHERS = ("BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
# Photographs are decoded no larger than they need be to see a thin pen's line.
_JPEG_SIDE = 1000


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Open an image file: PNG, JPEG, GIF, BMP, WebP, TIFF or PPM.

    Its size is checked before its pixels are decoded. EXIF orientation is applied; of several frames the
    first is taken. Raises NotAnImageError, TruncatedImageError, ImageTooLargeError or PixelValueError.
    """
    # The format of nearly all drawings, and OpenCV reads it twice as fast.
    return _decode_png(data, max_pixels) if data.startswith(_PNG) else _decode_any(data, max_pixels)


def normalise(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Find the digit on a picture and frame it as MNIST's are: uint8 [28, 28], light ink on dark.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4], of bytes, of 16-bit integers, or of floats in 0..1 or
    0..255. A picture that is already framed (28×28, grey, light ink on dark) comes back unchanged, one with
    dark ink on light inverted. Raises NoDigitError when nothing is drawn on it, ImageShapeError or
    PixelValueError when it is no picture.
    """
    pixels = as_pixels(image)
    if is_framed(pixels):
        return pixels
    # None but a small one is inverted, for a large one that takes a while.
    if pixels.shape == (SIDE, SIDE) and is_framed(255 - pixels):
        return 255 - pixels
    return frame(find_ink(pixels))


def is_framed(pixels: Pixels) -> bool:
    """Whether this is a 28×28 grey image with light ink on a dark ground, as MNIST's are."""
    if pixels.shape != (SIDE, SIDE):
        return False
    # Counted: to have NumPy find the median takes as long as to decode the picture.
    is_dark = 2 * np.count_nonzero(pixels.take(_BORDER) < 32) > len(_BORDER)
    # The norms are the greatest and the sum, of which OpenCV's take a third of NumPy's time.
    most, total = cv2.norm(pixels, cv2.NORM_INF), cv2.norm(pixels, cv2.NORM_L1)
    return bool(is_dark and most >= 128 and total < 128 * SIDE * SIDE)


def are_framed(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`is_framed` for each of many, [n, 28, 28], which takes less time than one after the other: bool [n]."""
    pixels = images.reshape(len(images), SIDE * SIDE)
    are_dark = 2 * np.count_nonzero(pixels[:, _BORDER] < 32, axis=1) > len(_BORDER)
    framed: NDArray[np.bool_] = (
        are_dark & (pixels.max(axis=1) >= 128) & (pixels.sum(axis=1) < 128 * SIDE * SIDE)
    )
    return framed


def _decode_png(data: bytes, max_pixels: int) -> Pixels:
    picture = limits.png_picture(data)
    width, height = struct.unpack(">II", picture[16:24])
    limits.check_size(width, height, max_pixels)
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise TruncatedImageError("the image file ends early or is damaged")
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return as_pixels(pixels)


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
        image.draft(None, (_JPEG_SIDE, _JPEG_SIDE))
    elif image.format == "TIFF":
        limits.check_strips(data)
    # A picture that is long and narrow is not reduced.
    limits.check_size(*image.size, max_pixels)


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
