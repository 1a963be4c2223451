"""Ink masks: alternative separations of ink and background on a picture with any number of digits.

A picture may show dark or light ink, on paper that is evenly lit or not; each mask assumes one of these.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoInkError
from digit_client.images import frames, scaling, thresholding


@dataclass(frozen=True, slots=True)
class InkMaskConfig:
    """Parameters of the separation."""

    background_side: int = 160
    """Longer side, in pixels, of the picture on which the background is estimated."""
    windows: tuple[float, float] = (1.0, 1 / 5)
    """Widths of the window that the background is estimated in, as shares of the picture's shorter side."""
    min_relative_contrast: float = 0.35
    """Least contrast of a mask's ink, as a share of that of the mask with the highest contrast."""
    max_overlap: float = 0.9
    """Intersection over union from which two masks are the same."""
    faint_share: float = 0.5
    """Contrast of printed lines, as a share of the ink's threshold."""
    line_rounds: int = 3
    """Largest number of rounds in which printed lines are removed."""
    min_ink: float = 0.5
    """Least ink of a pixel of the mask."""
    max_share: float = 0.4
    """Largest share of the picture that ink covers."""


@dataclass(frozen=True, slots=True)
class InkMask:
    """Ink of one separation: `ink` is float32 [h, w] in 0..1, `mask` uint8 [h, w] of 0 and 1."""

    ink: NDArray[np.float32]
    mask: NDArray[np.uint8]


_CONFIG = InkMaskConfig()


def ink_masks(picture: NDArray[np.uint8]) -> list[InkMask]:
    """Return masks of the ink, the one of highest contrast first.

    Takes grey [h, w] or RGB [h, w, 3]. The list is empty if nothing has enough contrast.
    """
    separated = []
    for levels in _darkness_and_lightness(picture):
        small = _downscale(levels)
        for window in _CONFIG.windows:
            contrast = _contrast(levels, small, window)
            try:
                threshold, full = thresholding.ink_levels(contrast)
            except NoInkError:
                continue
            separated.append((full, threshold, contrast))
    separated.sort(key=lambda item: -item[0])
    found: list[NDArray[np.uint8]] = []
    masks = []
    for full, threshold, contrast in separated:
        mask = (contrast > threshold).astype(np.uint8)
        is_faint = full < _CONFIG.min_relative_contrast * separated[0][0]
        is_broad = cv2.countNonZero(mask) > _CONFIG.max_share * mask.size
        if is_faint or is_broad or any(_overlap(mask, other) > _CONFIG.max_overlap for other in found):
            continue
        found.append(mask)
        ink_mask = _remove_lines(mask, contrast, threshold, full)
        if ink_mask is not None:
            masks.append(ink_mask)
    return masks


def _darkness_and_lightness(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return levels that rise with dark ink, and with light ink, of any colour: uint8 [h, w] each.

    Dark ink of a colour is dark in at least one channel.
    """
    if picture.ndim == 2:
        return 255 - picture, picture
    red, green, blue = cv2.split(picture)
    return 255 - cv2.min(cv2.min(red, green), blue), np.asarray(cv2.max(cv2.max(red, green), blue))


def _downscale(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = scaling.downscale_factor(levels.shape, _CONFIG.background_side)
    size = (max(1, levels.shape[1] // factor), max(1, levels.shape[0] // factor))
    return np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_AREA))


def _contrast(levels: NDArray[np.uint8], small: NDArray[np.uint8], window: float) -> NDArray[np.float32]:
    """Return the contrast with the background, which is estimated on the small picture: float32 [h, w].

    The contrast is the lower one of a white top hat, which removes structures wider than the window, and of
    the difference from the median in the window, which leaves no gaps and loops of strokes.
    """
    width = max(3, round(window * min(small.shape)) | 1)
    median = cv2.medianBlur(small, min(width, 255))
    # Replicate the border, so that strokes and tables there are removed as elsewhere.
    padded = cv2.copyMakeBorder(small, width, width, width, width, cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    background = cv2.max(median, opened[width:-width, width:-width])
    background = cv2.resize(background, levels.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.subtract(levels, background), np.float32)


def _remove_lines(
    mask: NDArray[np.uint8], contrast: NDArray[np.float32], threshold: float, full: float
) -> InkMask | None:
    """Return the ink above the threshold without printed lines, or None if nothing else is there.

    Lines may have more contrast than the ink: without them, another threshold is right, which may show
    fainter lines.
    """
    for _ in range(_CONFIG.line_rounds):
        faint = (contrast > _CONFIG.faint_share * threshold).astype(np.uint8)
        kept = frames.remove_lines(mask, faint)
        lines = mask & ~kept
        mask = kept
        if not cv2.countNonZero(lines):
            break
        contrast = np.where(cv2.dilate(lines, np.ones((3, 3), np.uint8)) > kept, np.float32(0), contrast)
        try:
            threshold, full = thresholding.ink_levels(contrast)
        except NoInkError:
            return None
        mask = kept | (contrast > threshold)
    if not cv2.countNonZero(mask):
        return None
    ink = thresholding.soft_mask(contrast, mask, threshold / 2, full)
    # Strokes are reconnected where they cross a line, without contrast.
    return InkMask(np.maximum(ink, mask * np.float32(_CONFIG.min_ink)), mask)


def _overlap(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return cv2.countNonZero(mask & other) / max(1, cv2.countNonZero(mask | other))
