"""Pictures in colours that show none, which take three times as long to read."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.arrays import Pixels

# One row in so many tells most pictures that have colours.
_SAMPLE = 16


def in_grey(pixels: Pixels) -> Pixels:
    """Grey [h, w], where all channels are the same and nothing shines through; else the picture itself."""
    if pixels.ndim == 2 or _channel(pixels[::_SAMPLE]) is None:
        return pixels
    channel = _channel(pixels)
    return pixels if channel is None else channel


def _channel(pixels: Pixels) -> NDArray[np.uint8] | None:
    red, green, blue, *alpha = cv2.split(pixels)
    if alpha and alpha[0].min() < 255:
        return None
    is_grey = not cv2.norm(red, green, cv2.NORM_INF) and not cv2.norm(green, blue, cv2.NORM_INF)
    return np.asarray(red, np.uint8) if is_grey else None
