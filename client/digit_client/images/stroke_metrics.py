"""Stroke metrics: width, length, contrast and roughness.

They distinguish the strokes of a digit from shadows, glare, blotches and remains of printed lines.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images.scaling import pad

INK_THRESHOLD = 0.2
"""Ink, in 0..1, above which a pixel belongs to the drawing."""

MIN_PAGE_SIDE = 100
"""Least shorter side of a page, in pixels: on smaller pictures, strokes are as fine as printed lines, and the
border often cuts them off."""

MAX_COMPONENTS = 9
"""Largest number of connected components of a digit's strokes; more are noise."""


@dataclass(frozen=True, slots=True)
class StrokeConfig:
    """Thresholds of the stroke metrics.

    *Span* is the longer side of the bounding box, *width* twice the distance to the nearest edge, *length*
    the area divided by the mean width. The *contrast ratio* is 0 for black on white and 1 without contrast.
    """

    core_ink: float = 0.8
    """Ink, in 0..1, above which a pixel belongs to a stroke's core; the rest is its soft edge."""

    max_width_of_span: float = 0.5
    """Largest width, as a share of the span: a blotch or a lamp's reflection is wider."""
    max_width_of_mean: float = 3.0
    """Largest width, as a multiple of the mean width: that of a blotch or a lamp's reflection is larger."""
    min_length_of_span: float = 0.7
    """Least length, as a share of the span: remains of printed lines are shorter."""

    max_border_share: float = 0.34
    """Largest share of the outline that the border cuts off: that of a shadow, glare or a table is larger."""
    max_ratio_cut_off: float = 0.52
    """Largest contrast ratio of strokes that the border cuts off: a shadow, glare or a table exceeds it."""
    fine_width_of_span: float = 0.04
    """Width, as a share of the span, up to which strokes are fine: they may be the edge of an object."""
    max_ratio_fine_cut_off: float = 0.1
    """Largest contrast ratio of fine strokes that the border cuts off: black on white or white on black."""

    max_fading: float = 0.6
    """Largest share of pixels outside of the core; a shade fades over more of its area."""
    max_ratio_fading: float = 0.9
    """Largest contrast ratio of strokes that fade over more than `max_fading`: a shade has a larger one."""
    broad_width_of_length: float = 0.13
    """Width, as a share of length or span, above which strokes are broad: a shade may be as broad."""
    max_fading_broad: float = 0.55
    """`max_fading` of broad strokes."""
    max_ratio_fading_broad: float = 0.7
    """`max_ratio_fading` of broad strokes."""

    max_ratio_high_contrast: float = 0.8
    """Largest contrast ratio of strokes with high contrast: a shade or noise has a larger one."""
    high_contrast_offset: int = 40
    """Levels added to both terms of this ratio: on a dark board, a few levels of noise are a large share."""

    max_unevenness: float = 1.5
    """Largest width of one pen's strokes, as where they cross, as a multiple of the mean width."""
    max_width_of_line: float = 0.3
    """Largest width of a line, as a share of the span."""
    neighbourhood_parts: int = 40
    """Picture's longer side divided by the radius around ink in which it is compared with paper."""


_CONFIG = StrokeConfig()


def looks_like_strokes(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> bool:
    """True if the ink can be the strokes of a digit.

    Takes ink, float32 [h, w] in 0..1 and not all 0, and the picture it was found on, in levels of 255:
    float32 [h, w] or [h, w, 3].
    """
    mask = ink > INK_THRESHOLD
    strokes = mask[bounding_box(mask)]
    span, width, mean_width = max(strokes.shape), max_stroke_width(strokes), _mean_stroke_width(strokes)
    length = float(strokes.sum()) / mean_width
    is_noise = _count_components(strokes) > MAX_COMPONENTS
    is_blotch = width > min(_CONFIG.max_width_of_span * span, _CONFIG.max_width_of_mean * mean_width)
    # A stroke's outline is twice as long as the stroke.
    border_share = sum(map(np.count_nonzero, border_pixels(mask))) / (2 * length)
    if (
        is_noise
        or is_blotch
        or border_share > _CONFIG.max_border_share
        or length <= _CONFIG.min_length_of_span * span
    ):
        return False
    # Width relative to the length: bent strokes are longer than their span, and may be broader.
    if width > _CONFIG.broad_width_of_length * max(span, length):
        max_ratio, max_fading = _CONFIG.max_ratio_fading_broad, _CONFIG.max_fading_broad
    else:
        max_ratio, max_fading = _CONFIG.max_ratio_fading, _CONFIG.max_fading
    is_fading = np.count_nonzero(mask & (ink < _CONFIG.core_ink)) > max_fading * np.count_nonzero(mask)
    if not border_share and not is_fading:
        return True
    if border_share:
        is_fine = width <= _CONFIG.fine_width_of_span * span
        max_ratio = _CONFIG.max_ratio_fine_cut_off if is_fine else _CONFIG.max_ratio_cut_off
    return _contrast_ratio(ink, picture) <= max_ratio


def looks_like_even_strokes(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> bool:
    """True if the ink can be strokes of one pen, by `has_even_width` and `looks_like_strokes`."""
    return has_even_width(ink) and looks_like_strokes(ink, picture)


def looks_like_high_contrast_strokes(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> bool:
    """True if the ink can be strokes, by `looks_like_strokes`, and has high contrast with the paper."""
    if not looks_like_strokes(ink, picture):
        return False
    return _contrast_ratio(ink, picture, _CONFIG.high_contrast_offset) <= _CONFIG.max_ratio_high_contrast


def is_slender(mask: NDArray[np.bool_]) -> bool:
    """True if the mask, bool [h, w] cropped to its component, is a line, not a blob."""
    return bool(max_stroke_width(mask) <= _CONFIG.max_width_of_line * max(mask.shape))


def has_even_width(ink: NDArray[np.float32]) -> bool:
    """True if the ink, float32 [h, w], is about as wide everywhere, as one pen's strokes are."""
    return _unevenness(ink) <= _CONFIG.max_unevenness


def roughness(ink: NDArray[np.float32]) -> float:
    """Return the number of components times the ratio of maximum to mean width; 1 for a single even line."""
    return _unevenness(ink) * _count_components(ink > INK_THRESHOLD)


def max_stroke_width(mask: NDArray[np.bool_]) -> float:
    """Return the largest width in the mask, bool [h, w], in pixels: twice the distance transform's peak."""
    ink = pad(mask[bounding_box(mask)].astype(np.uint8), 1)
    return 2 * float(cv2.distanceTransform(ink, cv2.DIST_L2, 3).max())


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest box around the mask, bool [h, w]."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return slice(top, top + height), slice(left, left + width)


def border_pixels(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """Return the mask's first and last row, and first and last column: bool [w], [w], [h] and [h]."""
    return mask[0], mask[-1], mask[:, 0], mask[:, -1]


def _unevenness(ink: NDArray[np.float32]) -> float:
    mask = ink > INK_THRESHOLD
    return max_stroke_width(mask) / _mean_stroke_width(mask)


def _count_components(mask: NDArray[np.bool_]) -> int:
    return int(cv2.connectedComponents(mask.astype(np.uint8))[0]) - 1


def _mean_stroke_width(mask: NDArray[np.bool_]) -> float:
    """Return the mean width in pixels: twice the area divided by the number of edge pixels."""
    ink = pad(mask[bounding_box(mask)].astype(np.uint8), 1)
    eroded = cv2.erode(ink, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return 2 * float(ink.sum()) / (float(ink.sum()) - float(eroded.sum()))


def _contrast_ratio(ink: NDArray[np.float32], picture: NDArray[np.float32], offset: int = 1) -> float:
    """Return the darker over the lighter level of the ink's core and the paper beside it, in 0..1.

    Levels are medians, of the channel with the highest contrast. The offset, in levels and at least 1, is
    added to both levels: a ratio to 0 is undefined.
    """
    mask, core = (ink > INK_THRESHOLD).astype(np.uint8), ink > _CONFIG.core_ink
    side = 2 * (max(mask.shape) // _CONFIG.neighbourhood_parts) + 1
    near = cv2.dilate(mask, np.ones((side, side), np.uint8)) > 0
    paper = near & (cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0)
    if not core.any() or not paper.any():
        return 0.0
    levels = picture.reshape(*mask.shape, -1)
    core_level, paper_level = (np.median(levels[region], axis=0) + offset for region in (core, paper))
    return float(np.minimum(core_level / paper_level, paper_level / core_level).min())
