"""What is marked on a picture: from how far each pixel departs from the ground to how much of it is ink."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoDigitError
from digit_client.images import components, line_removal

LEAST_CONTRAST = 10.0
"""In levels of 255: less than this can't be told from noise and compression."""


def ink(contrast: NDArray[np.float32], *, is_paper: bool) -> NDArray[np.float32]:
    """How much each pixel is ink that departs so far from the ground, in levels: float32 [h, w] in 0..1.

    On paper there may be printed lines, and what reaches into the picture. Raises NoDigitError where nothing
    is marked.
    """
    threshold, full = levels(contrast)
    mask, faint = ((contrast > least).astype(np.uint8) for least in (threshold, threshold / 2))
    mask = components.strokes(line_removal.remove(mask, faint) if is_paper else mask, is_paper=is_paper)
    # Half the threshold keeps the soft edge of a stroke.
    return graded(contrast, mask, threshold / 2, full)


def graded(
    contrast: NDArray[np.float32], strokes: NDArray[np.uint8], none: float, full: float
) -> NDArray[np.float32]:
    """The strokes, uint8 [h, w] of 0 and 1, with soft edges: from 0 at that contrast to 1 at this."""
    # A pixel further out belongs to something else.
    near = cv2.dilate(strokes, np.ones((3, 3), np.uint8))
    return np.asarray(np.clip((contrast - none) / (full - none), 0, 1) * near, np.float32)


def levels(contrast: NDArray[np.float32]) -> tuple[float, float]:
    """From which contrast on a pixel is ink, and the contrast of ink at its fullest."""
    scaled, counts, unit = _histogram(contrast, float(contrast.max()))
    top = _quantile(counts, 0.999)
    if top < 255:
        scaled, counts, unit = _histogram(contrast, top * unit)
    noise = 1.5 * _quantile(counts[:128], 0.5) * unit
    if 255 * unit < max(LEAST_CONTRAST, 5 * noise):
        raise NoDigitError("nothing is drawn on the image")
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    threshold = max(otsu * unit, 3 * noise)
    above = min(255, math.floor(threshold / unit) + 1)
    # Where printed lines or shade outnumber the ink, the threshold lies below them, but ink is the darkest.
    full = (above + _quantile(counts[above:], 0.75)) * unit
    threshold = max(threshold, 0.4 * full)
    return threshold, max(full, threshold * 1.05)


def _histogram(
    contrast: NDArray[np.float32], most: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    """The contrast as uint8 of which 255 is `most`, how often each level is there, and what one level is."""
    unit = max(most, 1.0) / 255
    levels = cv2.convertScaleAbs(contrast, alpha=1 / unit)
    counts = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel()
    return np.asarray(levels, np.uint8), np.asarray(counts, np.float32), unit


def _quantile(counts: NDArray[np.float32], share: float) -> float:
    """The level up to which such a share of what is counted lies, as np.quantile has it; 0 of nothing."""
    upto = counts.cumsum(dtype=np.float64)
    place = share * max(0.0, float(upto[-1]) - 1)
    below, above = upto.searchsorted((math.floor(place), math.ceil(place)), "right").tolist()
    return float(below + (above - below) * (place % 1)) if upto[-1] else 0.0
