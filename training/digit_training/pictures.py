"""Digits as pictures that a page carries within itself: PNG files as `data:` addresses."""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

FOR = (212, 122, 40)
AGAINST = (52, 62, 220)
"""Blue and red, in OpenCV's order, that stand out from white and from black, and for the colour-blind."""


def digits(images: NDArray[np.uint8]) -> str:
    """Images uint8 [n, 28, 28] side by side."""
    return _data(np.hstack(list(images)))


def signed(values: NDArray[np.float32], limit: float) -> str:
    """Values float32 [28, 28]: blue above 0, red below, the page's ground at 0, full colour from `limit`."""
    colours = np.where(values[:, :, None] > 0, np.array(FOR), np.array(AGAINST))
    strength = np.minimum(np.abs(values[:, :, None]) / limit, 1) * 255
    return _data(np.dstack((colours, strength)).astype(np.uint8))


def _data(image: NDArray[np.uint8]) -> str:
    png = cv2.imencode(".png", image)[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
