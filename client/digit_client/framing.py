"""Framing a digit as MNIST's are: scaled into 20×20 pixels, its centre of mass in the middle of 28×28."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 28
_BOX = 20
# Where MNIST's centres of mass lie, give or take half a pixel; the geometric middle is 13.5.
_MIDDLE = 14
# MNIST's strokes are two to three of its pixels wide; a thinner one would all but vanish in the scaling.
_LEAST_STROKE = 2.2


def frame(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Frame a digit: ink float32 [h, w] in 0..1, cropped to it, becomes uint8 [28, 28], light on dark."""
    scale = _BOX / max(ink.shape)
    box = _resize(_thicken(ink, scale), scale)
    box *= 255 / max(float(box.max()), 1e-6)
    return _centre(box)


def padded(image: NDArray[Any], by: int) -> NDArray[Any]:
    """With so many pixels of nothing on each side; np.pad takes eight times as long."""
    return np.asarray(cv2.copyMakeBorder(image, by, by, by, by, cv2.BORDER_CONSTANT, value=0))


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
