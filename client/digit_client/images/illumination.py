"""Shading removal: ink under uneven illumination, in shadows or beside them, and in glare."""

from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoInkError
from digit_client.images import background, components, document, line_removal, stroke_metrics, thresholding


@dataclass(frozen=True, slots=True)
class IlluminationConfig:
    """Thresholds that distinguish ink from shadows and object edges."""

    min_shadow_width: float = 2.0
    """Least ratio of a shadow's largest width to that of the strokes."""
    max_shadow_contrast: float = 0.75
    """Largest contrast of a shadow, as a share of the ink's."""
    max_roughness: float = 2.0
    """Roughness above which a mask may be an object's edges, so that local thresholding is tried."""
    max_local_roughness: float = 0.75
    """Roughness, as a share of the mask's, below which the locally thresholded mask replaces this mask."""


_CONFIG = IlluminationConfig()


def remove_shading(
    picture: NDArray[np.float32], contrast: NDArray[np.float32], ink: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the ink without shadows, and with strokes that glare had hidden: float32 [h, w] in 0..1.

    Takes the picture in levels, float32 [h, w] or [h, w, 3], its signed contrast with the background, float32
    [h, w], and the ink found by that contrast. Return the same ink if there is no shadow or glare, or if
    strokes can't be separated from a shadow or glare.
    """
    mask, positive = ink > stroke_metrics.INK_THRESHOLD, np.maximum(contrast, 0)
    is_not_strokes, is_even = document.is_not_strokes(mask), stroke_metrics.has_even_width(ink)
    has_shadow = is_not_strokes or background.has_shadow(positive)
    if has_shadow or not is_even:
        # An uneven mask may be an object that displaced the strokes: search all pixels above the threshold.
        searched = mask if is_even else positive > thresholding.ink_levels(positive)[0]
        separated = _separate_shadow(positive, searched)
        if separated is not None and stroke_metrics.looks_like_strokes(separated, picture):
            is_rough = has_shadow and stroke_metrics.roughness(separated) > _CONFIG.max_roughness
            return _prefer_smoother(separated, picture) if is_rough else separated
    if is_not_strokes:
        with suppress(NoInkError):
            return threshold_locally(picture)
    elif has_shadow:
        return ink if is_even else _prefer_smoother(ink, picture)
    elif background.has_glare(contrast):
        with suppress(NoInkError):
            local = threshold_locally(picture)
            if stroke_metrics.looks_like_even_strokes(local, picture):
                return local
    return ink


def threshold_locally(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ink by contrast with the neighbourhood instead of the whole picture's background.

    Takes float32 [h, w] or [h, w, 3] in levels, returns float32 [h, w] in 0..1. Raise NoInkError if nothing
    has enough contrast.
    """
    return thresholding.threshold_ink(background.local_contrast(picture), is_paper=True)


def _prefer_smoother(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return locally thresholded ink if it has high contrast and is much smoother; else the given ink."""
    with suppress(NoInkError):
        local = threshold_locally(picture)
        if stroke_metrics.looks_like_high_contrast_strokes(local, picture) and (
            stroke_metrics.roughness(local) < _CONFIG.max_local_roughness * stroke_metrics.roughness(ink)
        ):
            return local
    return ink


def _separate_shadow(contrast: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Split the mask by Otsu's threshold into ink and a fainter, wider shadow; return the ink.

    Return None if the fainter part is not a shadow.
    """
    levels = cv2.convertScaleAbs(contrast, alpha=255 / max(1.0, float(contrast.max())))
    otsu, _ = cv2.threshold(levels[mask], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    strong, weak = mask & (levels > otsu), mask & (levels <= otsu)
    least_width = _CONFIG.min_shadow_width * stroke_metrics.max_stroke_width(strong)
    if stroke_metrics.max_stroke_width(weak) < least_width or not strong.any():
        return None
    shadow_contrast, ink_contrast = float(np.median(contrast[weak])), float(np.median(contrast[strong]))
    if shadow_contrast > _CONFIG.max_shadow_contrast * ink_contrast:
        return None
    with suppress(NoInkError):
        without_lines = line_removal.remove_lines(strong.astype(np.uint8), mask.astype(np.uint8))
        digit = components.select_digit(without_lines, is_paper=True)
        return thresholding.soft_mask(contrast, digit, shadow_contrast, ink_contrast)
    return None
