"""Thresholding by Otsu's method: contrast with the background becomes a soft mask of ink.

N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. Syst. Man Cybern. 9, 1979.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoInkError
from digit_client.images import components, line_removal

MIN_CONTRAST = 10.0
"""Least contrast of ink, in levels: noise and compression have less."""


@dataclass(frozen=True, slots=True)
class ThresholdingConfig:
    """Parameters of the choice of thresholds."""

    peak_quantile: float = 0.999
    """Quantile of the contrast at the histogram's upper end: a few outliers would waste most bins."""
    noise_scale: float = 1.5
    """Noise level as a multiple of the median of the histogram's lower half; 1.48 for the absolute
    value of Gaussian noise."""
    min_peak_to_noise: float = 5.0
    """Least peak contrast of ink, as a multiple of the noise level."""
    min_threshold_to_noise: float = 3.0
    """Least threshold, as a multiple of the noise level."""
    full_quantile: float = 0.75
    """Quantile of the contrast above the threshold that is full ink."""
    min_threshold: float = 0.4
    """Least threshold, as a share of full ink's contrast: if printed lines or shade cover more than the ink,
    Otsu's threshold lies below their contrast, but the ink has more contrast."""
    min_full_to_threshold: float = 1.05
    """Least contrast of full ink, as a multiple of the threshold."""


_CONFIG = ThresholdingConfig()


def threshold_ink(contrast: NDArray[np.float32], *, is_paper: bool) -> NDArray[np.float32]:
    """Return the ink of the digit as a soft mask: float32 [h, w] in 0..1.

    Takes contrast with the background in levels, float32 [h, w]. With `is_paper`, printed lines and objects
    that extend beyond the border are removed. Raise NoInkError if nothing has enough contrast.
    """
    threshold, full = ink_levels(contrast)
    mask, faint = ((contrast > least).astype(np.uint8) for least in (threshold, threshold / 2))
    without_lines = line_removal.remove_lines(mask, faint) if is_paper else mask
    digit = components.select_digit(without_lines, is_paper=is_paper)
    # Ink starts at half the threshold, which keeps a stroke's soft edge.
    return soft_mask(contrast, digit, threshold / 2, full)


def soft_mask(
    contrast: NDArray[np.float32], mask: NDArray[np.uint8], low: float, high: float
) -> NDArray[np.float32]:
    """Return ink that rises from 0 at contrast `low` to 1 at `high`, at most one pixel outside of the mask.

    Takes float32 [h, w] in levels and uint8 [h, w] of 0 and 1. Returns float32 [h, w] in 0..1.
    """
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    return np.asarray(np.clip((contrast - low) / (high - low), 0, 1) * near, np.float32)


def ink_levels(contrast: NDArray[np.float32]) -> tuple[float, float]:
    """Return the threshold above which a pixel is ink, and the contrast of full ink, in levels.

    Raise NoInkError if the peak contrast is within the noise.
    """
    scaled, counts, bin_width = _histogram(contrast, float(contrast.max()))
    peak = _quantile(counts, _CONFIG.peak_quantile)
    if peak < 255:
        scaled, counts, bin_width = _histogram(contrast, peak * bin_width)
    noise = _CONFIG.noise_scale * _quantile(counts[:128], 0.5) * bin_width
    if 255 * bin_width < max(MIN_CONTRAST, _CONFIG.min_peak_to_noise * noise):
        raise NoInkError("nothing is drawn on the image")
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    threshold = max(otsu * bin_width, _CONFIG.min_threshold_to_noise * noise)
    above = min(255, math.floor(threshold / bin_width) + 1)
    full = (above + _quantile(counts[above:], _CONFIG.full_quantile)) * bin_width
    threshold = max(threshold, _CONFIG.min_threshold * full)
    return threshold, max(full, threshold * _CONFIG.min_full_to_threshold)


def _histogram(
    contrast: NDArray[np.float32], top: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
    """Return the contrast as uint8 with 255 for `top`, its histogram, float32 [256], and the bins' width."""
    bin_width = max(top, 1.0) / 255
    scaled = cv2.convertScaleAbs(contrast, alpha=1 / bin_width)
    counts = cv2.calcHist([scaled], [0], None, [256], [0, 256]).ravel()
    return np.asarray(scaled, np.uint8), np.asarray(counts, np.float32), bin_width


def _quantile(counts: NDArray[np.float32], share: float) -> float:
    """Return a quantile of a histogram, in bins, interpolated as by np.quantile; 0 for an empty histogram."""
    cumulative = counts.cumsum(dtype=np.float64)
    rank = share * max(0.0, float(cumulative[-1]) - 1)
    below, above = cumulative.searchsorted((math.floor(rank), math.ceil(rank)), "right").tolist()
    return float(below + (above - below) * (rank % 1)) if cumulative[-1] else 0.0
