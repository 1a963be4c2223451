"""Where on a picture there is ink, whatever the paper, the pen and the light."""

from contextlib import suppress
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._exceptions import NoDigitError
from digit_client.images import (
    background,
    components,
    document,
    illumination,
    scaling,
    stroke_metrics,
    thresholding,
)
from digit_client.images.scaling import padded

# In pixels: to this the ink of drawings is reduced, which has clear edges.
_DRAWN_SIDE = 128
# Of what is no paper: so much at least is a bold digit's ink.
_REST = 0.9
# Of the thickest stroke: finer lines were not drawn with its pen.
_FINE = 0.4
# In pixels: how far a sheet's edge reaches into it, and how far from that there is nothing but paper.
_RIM = 3
# So much broader at least than the strokes on it is the paper of a sheet.
_BROADER = 2
# In pixels: a picture whose shorter side has fewer shows nothing but the digit.
_LEAST_PHOTO = 50
# Of the way from the lightest to the darkest on such a picture: so far from its end there is paper.
_PAPER = 0.4
# In pixels: what is drawn and smaller is a speck.
_LEAST_SIZE = 3


def find_ink(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much each pixel is ink: float32 [h, w] in 0..1, cropped to the digit, 0 where there is none.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4]. Raises NoDigitError when nothing is drawn.
    """
    picture = _opaque(scaling.reduced(pixels))
    if not _is_small(picture):
        picture = scaling.undone(picture)
    if _is_small(picture):
        picture = _stretched(picture)
    drawn = background.flat_foreground(picture)
    if drawn is not None and max(drawn.shape) >= _LEAST_SIZE:
        # What is full may be a sheet of paper, drawn as well.
        with suppress(NoDigitError):
            ink = thresholding.ink(scaling.reduced(drawn, _DRAWN_SIDE).astype(np.float32), is_paper=False)
            if not document.is_full(ink > stroke_metrics.EDGE):
                return _cropped(ink)
    levels = picture.astype(np.float32)
    ink = _ink_on_paper(levels)
    # What is drawn may be a digit's first dot.
    is_photo = not _is_small(picture) and not background.has_plain_border(picture)
    if is_photo and not stroke_metrics.is_written(ink, levels):
        ink = _hidden_ink(levels, ink)
    return _cropped(ink)


def _hidden_ink(picture: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float32]:
    """The strokes where what was found is none, but printed lines that touch them, light or shadow."""
    for find in (partial(_without_fine_lines, found), partial(_the_other_way, picture)):
        with suppress(NoDigitError):
            if stroke_metrics.is_of_a_pen(ink := find(), picture):
                return ink
    ink = illumination.local_ink(picture)
    if stroke_metrics.is_clear(ink, picture):
        return ink
    raise NoDigitError("nothing on the image looks like the strokes of a digit")


def _the_other_way(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """What departs from the paper the other way than what departs most."""
    return thresholding.ink(np.maximum(-background.departure(picture), 0), is_paper=True)


def _ink_on_paper(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    if _is_small(picture):
        return _ink_alone(picture)
    departure = background.departure(picture)
    contrast = np.maximum(departure, 0)
    try:
        ink = thresholding.ink(contrast, is_paper=True)
    except NoDigitError:
        if not background.has_shadow(contrast):
            raise
        return illumination.local_ink(picture)
    mask = ink > stroke_metrics.EDGE
    if (written := _ink_on_sheet(picture, mask)) is not None:
        return written
    if document.surrounds(mask) and (bold := _bold_ink(picture, mask)) is not None:
        return bold
    return illumination.unshaded(picture, departure, ink)


def _ink_alone(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The ink where nothing but the digit is shown, which may reach every side and be most of it."""
    contrast = np.maximum(background.departure(picture, _like_corners(picture)), 0)
    # With as much paper around it, for what is on most of a picture passes for noise.
    return thresholding.ink(padded(contrast, min(contrast.shape) // 2 + 1), is_paper=True)


def _like_corners(picture: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a picture is as light or dark as most of its corners: a digit has none of them or few."""
    lightness = picture.reshape(*picture.shape[:2], -1).mean(axis=2)
    least, most = float(lightness.min()), float(lightness.max())
    share = (lightness - least) / max(most - least, 1.0)
    are_light = share[[0, 0, -1, -1], [0, -1, 0, -1]].mean() > 0.5
    return np.asarray(share > 1 - _PAPER if are_light else share < _PAPER)


def _bold_ink(picture: NDArray[np.float32], paper: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """The ink where there is more of it than of paper, that of a bold digit which fills the picture.

    None where not all but the paper is ink.
    """
    with suppress(NoDigitError):
        ink = thresholding.ink(np.maximum(background.departure(picture, paper), 0), is_paper=True)
        mask = ink > stroke_metrics.EDGE
        is_the_rest = mask.sum() > _REST * np.count_nonzero(~paper)
        if is_the_rest and not document.is_a_thing(mask) and not document.is_written_on(mask):
            return ink
    return None


def _without_fine_lines(ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """The ink without lines that are much finer than the rest, as printed ones are that strokes touch."""
    mask = ink > stroke_metrics.EDGE
    side = max(3, round(_FINE * stroke_metrics.thickness(mask)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    bold = components.strokes(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel), is_paper=True)
    return np.asarray(ink * cv2.dilate(bold, np.ones((3, 3), np.uint8)), np.float32)


def _ink_on_sheet(picture: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """What is written on a sheet of paper, which is the mask or what is left by it; None where none is."""
    for paper in (mask, ~mask):
        sheet = document.sheet(paper)
        if sheet is None or not (inside := document.inside(sheet, _RIM)).any():
            continue
        ink = _ink_within(picture, inside)
        # The paper within a bold 0 could pass for written on it.
        if ink is not None and _BROADER * stroke_metrics.thickness(
            ink > stroke_metrics.EDGE
        ) < stroke_metrics.thickness(paper):
            return ink
    return None


def _ink_within(picture: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """What is written there; None where nothing is, or it is a shadow."""
    with suppress(NoDigitError):
        ink = thresholding.ink(background.contrast_within(picture, inside), is_paper=True)
        # The edge of a shadow is no line, and reaches into it.
        if (
            stroke_metrics.is_written(ink, picture)
            and not (ink > stroke_metrics.EDGE)[~document.inside(inside, _RIM)].any()
        ):
            return ink
    return None


def _is_small(picture: NDArray[Any]) -> bool:
    """Whether it shows nothing but the digit."""
    return bool(min(picture.shape[:2]) < _LEAST_PHOTO)


def _cropped(ink: NDArray[np.float32]) -> NDArray[np.float32]:
    # A fainter edge would make the digit look larger than it is where it has few pixels.
    left, top, width, height = cv2.boundingRect((ink > stroke_metrics.EDGE).astype(np.uint8))
    return np.asarray(ink[top : top + height, left : left + width], np.float32)


def _stretched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From 0 to 255: a small scan may have no more than sixteen levels."""
    least, most, _, _ = cv2.minMaxLoc(picture.reshape(len(picture), -1))
    if most - least < thresholding.LEAST_CONTRAST:
        return picture
    scale = 255 / (most - least)
    return np.asarray(cv2.convertScaleAbs(picture, alpha=scale, beta=-least * scale))


def _opaque(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture on paper that its ink shows on: uint8 [h, w] or [h, w, 3]."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    if pixels[:, :, 3].min() == 255:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)
    colour, alpha = pixels[:, :, :3].astype(np.float32), pixels[:, :, 3:] / np.float32(255)
    weight = float(alpha.sum())
    luminance = float((colour.mean(axis=2, keepdims=True) * alpha).sum()) / weight if weight else 0.0
    paper = np.float32(0 if luminance > 127 else 255)
    return np.asarray(np.rint(colour * alpha + paper * (1 - alpha)), np.uint8)
