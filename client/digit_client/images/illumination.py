"""Ink where the light is uneven: in a shadow or beside one, and in a lamp's gleam."""

from contextlib import suppress

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoDigitError
from digit_client.images import background, components, document, line_removal, stroke_metrics, thresholding

Floats = NDArray[np.float32]

# So much broader at least than the strokes is a shadow, and it departs less than this, of what they do.
_BROADER, _SHADE = 2, 0.75
# What is rougher may be the edges of something, and is compared with what departs from what is around it,
# which is less rough than this, of it, where it shows the strokes.
_ROUGH, _SMOOTHER = 2.0, 0.75


def unshaded(picture: Floats, departure: Floats, ink: Floats) -> Floats:
    """The ink itself, or where it shows more than strokes, those that are in a shadow or beside it; or less,
    those that are in a gleam.

    Takes how far the picture, float32 [h, w] or [h, w, 3], departs from its ground, float32 [h, w], and what
    was taken for ink by that, float32 [h, w] in 0..1.
    """
    mask, contrast = ink > stroke_metrics.EDGE, np.maximum(departure, 0)
    is_a_thing, is_even = document.is_a_thing(mask), stroke_metrics.is_even(ink)
    has_shadow = is_a_thing or background.has_shadow(contrast)
    if has_shadow or not is_even:
        # What is not even may be no strokes, and have hidden them.
        strongest = _strongest(contrast, mask if is_even else contrast > thresholding.levels(contrast)[0])
        if strongest is not None and stroke_metrics.is_written(strongest, picture):
            is_rough = has_shadow and stroke_metrics.roughness(strongest) > _ROUGH
            return _smoother(strongest, picture) if is_rough else strongest
    if is_a_thing:
        with suppress(NoDigitError):
            return local_ink(picture)
    elif has_shadow:
        return ink if is_even else _smoother(ink, picture)
    elif background.has_gleam(departure):
        with suppress(NoDigitError):
            local = local_ink(picture)
            if stroke_metrics.is_of_a_pen(local, picture):
                return local
    return ink


def local_ink(picture: Floats) -> Floats:
    """What departs from what is around it: float32 [h, w] in 0..1. Raises NoDigitError where nothing does."""
    return thresholding.ink(background.local_contrast(picture), is_paper=True)


def _smoother(ink: Floats, picture: Floats) -> Floats:
    """The ink, or what departs from what is around it, where that is much more like strokes."""
    with suppress(NoDigitError):
        local = local_ink(picture)
        if stroke_metrics.is_clear(local, picture) and stroke_metrics.roughness(
            local
        ) < _SMOOTHER * stroke_metrics.roughness(ink):
            return local
    return ink


def _strongest(contrast: Floats, mask: NDArray[np.bool_]) -> Floats | None:
    """The ink where the mask shows strokes and something fainter and broader; None where it does not."""
    levels = cv2.convertScaleAbs(contrast, alpha=255 / max(1.0, float(contrast.max())))
    otsu, _ = cv2.threshold(levels[mask], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    strong, rest = mask & (levels > otsu), mask & (levels <= otsu)
    if stroke_metrics.thickness(rest) < _BROADER * stroke_metrics.thickness(strong) or not strong.any():
        return None
    faint, full = float(np.median(contrast[rest])), float(np.median(contrast[strong]))
    if faint > _SHADE * full:
        return None
    with suppress(NoDigitError):
        unruled = line_removal.remove(strong.astype(np.uint8), mask.astype(np.uint8))
        return thresholding.graded(contrast, components.strokes(unruled, is_paper=True), faint, full)
    return None
