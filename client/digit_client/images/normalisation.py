"""Framing a digit as MNIST's are: scaled into 20×20 pixels, its centre of mass in the middle of 28×28."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._inputs import Pixels, to_uint8_image
from digit_client.images.scaling import padded
from digit_client.images.segmentation import find_ink

SIDE = 28
_BOX = 20
# Where MNIST's centres of mass lie, give or take half a pixel; the geometric middle is 13.5.
_MIDDLE = 14
# MNIST's strokes are two to three of its pixels wide; a thinner one would all but vanish in the scaling.
_LEAST_STROKE = 2.2


def fit_to_mnist_canvas(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Frame a digit: ink float32 [h, w] in 0..1, cropped to it, becomes uint8 [28, 28], light on dark."""
    scale = _BOX / max(ink.shape)
    box = _resize(_thicken(ink, scale), scale)
    box *= 255 / max(float(box.max()), 1e-6)
    return _centre(box)


def _thicken(ink: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    # Padded, for a stroke ends where the picture of it is cropped.
    mask = padded((ink > 0.5).astype(np.uint8), 1)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    # The distance to a stroke's edge is half its width along its middle, and a quarter on average.
    width = 4 * cv2.mean(depth, mask)[0] - 1 if mask.any() else 1.0
    missing = round(_LEAST_STROKE / scale - width)
    if missing < 1:
        return ink
    pad = (missing + 1) // 2
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (missing + 1, missing + 1))
    thick: NDArray[np.float32] = cv2.dilate(padded(ink, pad), kernel)
    return thick


def _resize(ink: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    height, width = ink.shape
    scale = min(scale, _BOX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    box: NDArray[np.float32] = cv2.resize(ink, size, interpolation=how)
    return box


def _centre(box: NDArray[np.float32]) -> NDArray[np.uint8]:
    height, width = box.shape
    mass = float(box.sum())
    row = float(box.sum(axis=1) @ np.arange(height)) / mass
    column = float(box.sum(axis=0) @ np.arange(width)) / mass
    top = min(max(round(_MIDDLE - row), 0), SIDE - height)
    left = min(max(round(_MIDDLE - column), 0), SIDE - width)
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = np.rint(box)
    return image


# One row in 16 is enough to recognise most colour pictures.
_SAMPLE = 16


def drop_redundant_channels(pixels: Pixels) -> Pixels:
    """Grey [h, w] where all colour channels are equal and alpha is opaque; else the picture itself."""
    if pixels.ndim == 2 or _grey(pixels[::_SAMPLE]) is None:
        return pixels
    grey = _grey(pixels)
    return pixels if grey is None else grey


def _grey(pixels: Pixels) -> NDArray[np.uint8] | None:
    red = cv2.extractChannel(pixels, 0)
    expected = cv2.cvtColor(red, cv2.COLOR_GRAY2RGBA if pixels.shape[2] == 4 else cv2.COLOR_GRAY2RGB)
    return None if cv2.norm(pixels, expected, cv2.NORM_INF) else np.asarray(red, np.uint8)


# The brightest pixel of a framed digit, at least; its longer side, in pixels; and where its centre of mass
# lies, give or take a rounding: so it is of all 70,000 of MNIST's.
_LIGHT = 128
_LONGER = (19, 20)
_CENTRE = (13.45, 14.55)
_ONES, _PLACES = np.ones(SIDE, np.float32), np.arange(SIDE, dtype=np.float32)


def normalise(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Find the digit on a picture and frame it as MNIST's are: uint8 [28, 28], light ink on dark.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4], of bytes, of 16-bit integers, or of floats in 0..1 or
    0..255. A picture that is framed already comes back unchanged, one with dark ink on light inverted. Raises
    NoDigitError when nothing is drawn on it, ImageShapeError or PixelValueError when it is no picture.
    """
    pixels = drop_redundant_channels(to_uint8_image(image))
    if is_normalized(pixels):
        return pixels
    # None but a small one is inverted, for a large one that takes a while.
    if pixels.shape == (SIDE, SIDE) and is_normalized(255 - pixels):
        return 255 - pixels
    return fit_to_mnist_canvas(find_ink(pixels))


def is_normalized(pixels: Pixels) -> bool:
    """Whether this is grey [28, 28] and a digit is on it as on all of MNIST's.

    Light on black, its longer side 20 pixels or 19, and its centre of mass in the middle.
    """
    if pixels.shape != (SIDE, SIDE) or cv2.norm(pixels, cv2.NORM_INF) < _LIGHT:
        return False
    if not _LONGER[0] <= max(cv2.boundingRect(pixels)[2:]) <= _LONGER[1]:
        return False
    moments = cv2.moments(pixels)
    row, column = moments["m01"] / moments["m00"], moments["m10"] / moments["m00"]
    return bool(_CENTRE[0] <= row <= _CENTRE[1] and _CENTRE[0] <= column <= _CENTRE[1])


def are_normalized(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`is_normalized` of each of n images, uint8 [n, 28, 28], vectorised: bool [n]."""
    are_light = images.reshape(len(images), -1).max(axis=1) >= _LIGHT
    grey = images.astype(np.float32)
    # Of each its rows' sums, and its columns'.
    sums = np.stack((grey @ _ONES, _ONES @ grey))
    longer = _extents(sums > 0).max(axis=0)
    middles = sums @ _PLACES / np.maximum(sums.sum(axis=2), 1)
    are_central = ((middles >= _CENTRE[0]) & (middles <= _CENTRE[1])).all(axis=0)
    framed: NDArray[np.bool_] = are_light & (longer >= _LONGER[0]) & (longer <= _LONGER[1]) & are_central
    return framed


def _extents(inked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """From the first to the last that is inked: bool [..., 28] becomes [...]."""
    return np.asarray(SIDE - inked.argmax(axis=-1) - inked[..., ::-1].argmax(axis=-1))
