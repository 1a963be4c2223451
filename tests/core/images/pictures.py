"""Synthetic pictures of digits, and the comparison of normalised digits."""

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
FloatImage = NDArray[np.float32]
"""Grey levels in 0..255: float32 [h, w]."""

MIN_SIMILARITY = 0.85
"""Correlation above which two normalised digits count as the same."""


def draw_page(digit: Pixels) -> Pixels:
    """Draw the digit in dark grey on a light grey page, off its centre: uint8 [400, 500]."""
    large = cv2.resize(digit, (168, 168), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
    ink = np.zeros((400, 500), np.float32)
    ink[60:228, 250:418] = large
    return np.rint(215 - 170 * ink).astype(np.uint8)


def photograph(levels: FloatImage) -> Pixels:
    """Add sensor noise: a picture with a flat background would pass for a drawing."""
    noise = np.random.default_rng(0).normal(0, 2, levels.shape)
    return np.rint(levels + noise).astype(np.uint8)


def crop_digit(digit: Pixels) -> Pixels:
    """Crop the digit, light on dark, to its bounding box."""
    left, top, width, height = cv2.boundingRect((digit > 40).astype(np.uint8))
    return digit[top : top + height, left : left + width]


def assert_same_digit(found: Pixels, expected: Pixels) -> None:
    """Assert that two normalised digits have the same strokes, whatever their width."""
    assert found.shape == (28, 28)
    assert found.dtype == np.uint8
    assert similarity(found, expected) > MIN_SIMILARITY


def similarity(found: Pixels, expected: Pixels) -> float:
    """Return the correlation of two normalised digits, blurred to tolerate a pixel of stroke width."""
    blurred = (cv2.GaussianBlur(digit, (5, 5), 0).ravel() for digit in (found, expected))
    return float(np.corrcoef(*blurred)[0, 1])
