"""Normalisation to MNIST's form: a digit scaled into 20×20 pixels, its centre of mass at the centre of 28×28.

Y. LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.images.scaling import pad
from digit_core.inputs import Pixels

SIDE = 28
"""Width and height of a normalised digit, in pixels."""


@dataclass(frozen=True, slots=True)
class MnistConfig:
    """Geometry of MNIST's digits, in pixels; bounds hold for all 70,000 of them."""

    digit_side: int = 20
    """Longer side of a digit; of the box around all pixels that are not 0, this or one less."""
    center: int = 14
    """Row and column of the centre of mass; the geometric centre is 13.5."""
    max_offset: float = 0.55
    """Distance of the centre of mass from there, along rows and columns, with rounding."""
    min_peak: int = 128
    """Level of the brightest pixel."""
    min_stroke_width: float = 2.2
    """Strokes are two to three pixels wide; a finer one would almost vanish when downscaled."""


_CONFIG = MnistConfig()
_ONES, _INDEXES = np.ones(SIDE, np.float32), np.arange(SIDE, dtype=np.float32)


def fit_to_mnist_canvas(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scale and centre a digit as in MNIST: uint8 [28, 28], light ink on dark.

    Takes ink as a soft mask, float32 [h, w] in 0..1, cropped to the digit.
    """
    scale = _CONFIG.digit_side / max(ink.shape)
    box = _resize(_thicken(ink, scale), scale)
    box *= 255 / max(float(box.max()), 1e-6)
    return _center(box)


def is_normalized(pixels: Pixels) -> bool:
    """True if the picture is grey [28, 28] with a digit in MNIST's form.

    The digit is light on black, its longer side 19 or 20 pixels, its centre of mass at the centre.
    """
    if pixels.shape != (SIDE, SIDE) or cv2.norm(pixels, cv2.NORM_INF) < _CONFIG.min_peak:
        return False
    if not _CONFIG.digit_side - 1 <= max(cv2.boundingRect(pixels)[2:]) <= _CONFIG.digit_side:
        return False
    moments = cv2.moments(pixels)
    row, column = moments["m01"] / moments["m00"], moments["m10"] / moments["m00"]
    offset = float(max(abs(row - _CONFIG.center), abs(column - _CONFIG.center)))
    return offset <= _CONFIG.max_offset


def are_normalized(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Vectorised `is_normalized`: uint8 [n, 28, 28] to bool [n]."""
    is_bright = images.reshape(len(images), -1).max(axis=1) >= _CONFIG.min_peak
    grey = images.astype(np.float32)
    # Sums of each row and of each column: float32 [2, n, 28].
    sums = np.stack((grey @ _ONES, _ONES @ grey))
    sides = _extents(sums > 0).max(axis=0)
    has_size = (sides == _CONFIG.digit_side) | (sides == _CONFIG.digit_side - 1)
    offsets = sums @ _INDEXES / np.maximum(sums.sum(axis=2), 1) - _CONFIG.center
    is_centered = (np.abs(offsets) <= _CONFIG.max_offset).all(axis=0)
    normalized: NDArray[np.bool_] = is_bright & has_size & is_centered
    return normalized


def _extents(is_ink: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the distance from the first True to the last, both included: bool [..., 28] to [...]."""
    return np.asarray(SIDE - is_ink.argmax(axis=-1) - is_ink[..., ::-1].argmax(axis=-1))


def _thicken(ink: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Dilate strokes that would be finer than MNIST's after scaling."""
    # Pad the mask, so that the edge of the crop counts as a stroke's edge.
    mask = pad((ink > 0.5).astype(np.uint8), 1)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    # The distance transform of a stroke is half its width in the middle, and a quarter on average.
    width = 4 * cv2.mean(distance, mask)[0] - 1 if mask.any() else 1.0
    missing = round(_CONFIG.min_stroke_width / scale - width)
    if missing < 1:
        return ink
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (missing + 1, missing + 1))
    thick: NDArray[np.float32] = cv2.dilate(pad(ink, (missing + 1) // 2), kernel)
    return thick


def _resize(ink: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    height, width = ink.shape
    scale = min(scale, _CONFIG.digit_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    box: NDArray[np.float32] = cv2.resize(ink, size, interpolation=interpolation)
    return box


def _center(box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Place the box, float32 [h, w] in 0..255, with its centre of mass at the centre."""
    height, width = box.shape
    mass = float(box.sum())
    row = float(box.sum(axis=1) @ np.arange(height)) / mass
    column = float(box.sum(axis=0) @ np.arange(width)) / mass
    top = min(max(round(_CONFIG.center - row), 0), SIDE - height)
    left = min(max(round(_CONFIG.center - column), 0), SIDE - width)
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = np.rint(box)
    return image
