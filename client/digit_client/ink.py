"""Where on a picture there is ink, whatever the paper, the pen and the light."""

import math
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client import drawing, enlargement, ground, pieces, reduction, ruling, shapes, sheets
from digit_client.errors import NoDigitError

# In pixels: to this the ink of drawings is reduced, which has clear edges.
_DRAWN_SIDE = 128
# In levels of 255: less than this can't be told from noise and compression.
_LEAST_CONTRAST = 10.0
# Of what is no paper: so much at least is a bold digit's ink.
_REST = 0.9
# Of the thickest stroke: finer lines were not drawn with its pen.
_FINE = 0.4
# In pixels: how far a sheet's edge reaches into it, and how far from that there is nothing but paper.
_RIM = 3
# So much broader at least than the strokes on it is the paper of a sheet, or a shadow.
_BROADER = 2
# In pixels: a picture whose shorter side has fewer shows nothing but the digit.
_LEAST_PHOTO = 50
# What else departs less than this, of what the strokes do, is a shadow. It is so much of both at least, and
# not the soft edge of strokes, in pixels.
_SHADE, _LEAST_REST, _SOFT = 0.75, 0.02, 7
# In pixels: what is drawn and smaller is a speck.
_LEAST_SIZE = 3


def find_ink(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much each pixel is ink: float32 [h, w] in 0..1, cropped to the digit, 0 where there is none.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4]. Raises NoDigitError when nothing is drawn.
    """
    picture = _opaque(reduction.reduced(pixels))
    if not _is_small(picture):
        picture = enlargement.undone(picture)
    if _is_small(picture):
        picture = _stretched(picture)
    drawn = drawing.departure(picture)
    if drawn is not None and max(drawn.shape) >= _LEAST_SIZE:
        # What is full may be a sheet of paper, drawn as well.
        with suppress(NoDigitError):
            ink = _ink(reduction.reduced(drawn, _DRAWN_SIDE).astype(np.float32), is_paper=False)
            if not sheets.is_full(ink > shapes.EDGE):
                return _cropped(ink)
    levels = picture.astype(np.float32)
    ink = _ink_on_paper(levels)
    # What is drawn may be a digit's first dot.
    is_photo = not _is_small(picture) and not drawing.has_plain_border(picture)
    if is_photo and not shapes.is_written(ink, levels):
        ink = _hidden_ink(levels, ink)
    return _cropped(ink)


def _hidden_ink(picture: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float32]:
    """The strokes where what was found is none, but printed lines that touch them, light or shadow."""
    ink = _without_fine_lines(found)
    if _is_of_a_pen(ink, picture):
        return ink
    ink = _ink(np.maximum(-ground.departure(picture), 0), is_paper=True)
    if _is_of_a_pen(ink, picture):
        return ink
    ink = _local_ink(picture)
    if shapes.is_written(ink, picture) and shapes.is_strong(ink, picture):
        return ink
    raise NoDigitError("nothing on the image looks like the strokes of a digit")


def _is_of_a_pen(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> bool:
    return shapes.is_even(ink) and shapes.is_written(ink, picture)


def _ink_on_paper(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    departure = ground.departure(picture)
    contrast = np.maximum(departure, 0)
    is_small = _is_small(contrast)
    try:
        ink = _ink(contrast, is_paper=True)
    except NoDigitError:
        if is_small or not ground.has_shadow(contrast):
            raise
        return _local_ink(picture)
    mask = ink > shapes.EDGE
    if not is_small and (written := _ink_on_sheet(picture, mask)) is not None:
        return written
    if sheets.surrounds(mask) and (bold := _bold_ink(picture, mask)) is not None:
        return bold
    return ink if is_small else _in_uneven_light(picture, departure, ink)


def _bold_ink(picture: NDArray[np.float32], paper: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """The ink where there is more of it than of paper, that of a bold digit which fills the picture.

    None where not all but the paper is ink.
    """
    with suppress(NoDigitError):
        ink = _ink(np.maximum(ground.departure(picture, paper), 0), is_paper=True)
        mask = ink > shapes.EDGE
        if mask.sum() > _REST * np.count_nonzero(~paper) and not sheets.is_a_thing(mask):
            return ink
    return None


def _without_fine_lines(ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """The ink without lines that are much finer than the rest, as printed ones are that strokes touch."""
    mask = ink > shapes.EDGE
    side = max(3, round(_FINE * shapes.thickness(mask)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    bold = pieces.strokes(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel), is_paper=True)
    return np.asarray(ink * cv2.dilate(bold, np.ones((3, 3), np.uint8)), np.float32)


def _ink_on_sheet(picture: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """What is written on a sheet of paper, which is the mask or what is left by it; None where none is."""
    for paper in (mask, ~mask):
        sheet = sheets.sheet(paper)
        if sheet is None or not (inside := sheets.inside(sheet, _RIM)).any():
            continue
        ink = _ink_within(picture, inside)
        # The paper within a bold 0 could pass for written on it.
        if ink is not None and _BROADER * shapes.thickness(ink > shapes.EDGE) < shapes.thickness(paper):
            return ink
    return None


def _ink_within(picture: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """What is written there; None where nothing is, or it is a shadow."""
    with suppress(NoDigitError):
        ink = _ink(ground.contrast_within(picture, inside), is_paper=True)
        # The edge of a shadow is no line, and reaches into it.
        if shapes.is_written(ink, picture) and not (ink > shapes.EDGE)[~sheets.inside(inside, _RIM)].any():
            return ink
    return None


def _in_uneven_light(
    picture: NDArray[np.float32], departure: NDArray[np.float32], ink: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The ink itself, or where it shows more than strokes, those that are in a shadow or beside it; or less,
    those that are in a gleam.
    """
    mask, contrast = ink > shapes.EDGE, np.maximum(departure, 0)
    is_a_thing, is_even = sheets.is_a_thing(mask), shapes.is_even(ink)
    has_shadow = is_a_thing or ground.has_shadow(contrast)
    if has_shadow or not is_even:
        # What is not even may be no strokes, and have hidden them.
        strongest = _strongest(contrast, mask if is_even else contrast > _levels(contrast)[0])
        if strongest is not None and shapes.is_written(strongest, picture):
            return strongest
    if has_shadow:
        with suppress(NoDigitError):
            local = _local_ink(picture)
            if is_a_thing or _is_fainter(contrast, mask, local > shapes.EDGE):
                return local
            if shapes.is_even(local) and not shapes.is_written(ink, picture):
                return local
    elif ground.has_gleam(departure):
        with suppress(NoDigitError):
            local = _local_ink(picture)
            if _is_of_a_pen(local, picture):
                return local
    return ink


def _local_ink(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """What departs from what is around it."""
    return _ink(ground.local_contrast(picture), is_paper=True)


def _strongest(contrast: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """The ink where the mask shows strokes and something fainter and broader; None where it does not."""
    levels = cv2.convertScaleAbs(contrast, alpha=255 / max(1.0, float(contrast.max())))
    otsu, _ = cv2.threshold(levels[mask], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    strong, rest = mask & (levels > otsu), mask & (levels <= otsu)
    if shapes.thickness(rest) < _BROADER * shapes.thickness(strong) or not strong.any():
        return None
    faint, full = float(np.median(contrast[rest])), float(np.median(contrast[strong]))
    if faint > _SHADE * full:
        return None
    with suppress(NoDigitError):
        unruled = ruling.remove(strong.astype(np.uint8), mask.astype(np.uint8))
        return _graded(contrast, pieces.strokes(unruled, is_paper=True), faint, full)
    return None


def _is_fainter(contrast: NDArray[np.float32], mask: NDArray[np.bool_], strokes: NDArray[np.bool_]) -> bool:
    """Whether the rest of the mask departs less from the paper than the strokes in it do."""
    near = cv2.dilate(strokes.astype(np.uint8), np.ones((_SOFT, _SOFT), np.uint8))
    rest, within = mask & (near == 0), mask & strokes
    if not within.any() or rest.sum() < _LEAST_REST * mask.sum():
        return False
    return float(np.quantile(contrast[rest], 0.75)) < _SHADE * float(np.median(contrast[within]))


def _ink(contrast: NDArray[np.float32], *, is_paper: bool) -> NDArray[np.float32]:
    threshold, full = _levels(contrast)
    mask, faint = ((contrast > least).astype(np.uint8) for least in (threshold, threshold / 2))
    mask = pieces.strokes(ruling.remove(mask, faint) if is_paper else mask, is_paper=is_paper)
    # Half the threshold keeps the soft edge of a stroke.
    return _graded(contrast, mask, threshold / 2, full)


def _graded(
    contrast: NDArray[np.float32], strokes: NDArray[np.uint8], none: float, full: float
) -> NDArray[np.float32]:
    """The strokes, uint8 [h, w] of 0 and 1, with soft edges: from 0 at that contrast to 1 at this."""
    # A pixel further out belongs to something else.
    near = cv2.dilate(strokes, np.ones((3, 3), np.uint8))
    return np.asarray(np.clip((contrast - none) / (full - none), 0, 1) * near, np.float32)


def _is_small(picture: NDArray[Any]) -> bool:
    """Whether it shows nothing but the digit."""
    return bool(min(picture.shape[:2]) < _LEAST_PHOTO)


def _cropped(ink: NDArray[np.float32]) -> NDArray[np.float32]:
    # A fainter edge would make the digit look larger than it is where it has few pixels.
    left, top, width, height = cv2.boundingRect((ink > shapes.EDGE).astype(np.uint8))
    return np.asarray(ink[top : top + height, left : left + width], np.float32)


def _stretched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From 0 to 255: a small scan may have no more than sixteen levels."""
    least, most, _, _ = cv2.minMaxLoc(picture.reshape(len(picture), -1))
    if most - least < _LEAST_CONTRAST:
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


def _levels(contrast: NDArray[np.float32]) -> tuple[float, float]:
    """From which contrast on a pixel is ink, and the contrast of ink at its fullest."""
    levels, counts, unit = _histogram(contrast, float(contrast.max()))
    top = _quantile(counts, 0.999)
    if top < 255:
        levels, counts, unit = _histogram(contrast, top * unit)
    noise = 1.5 * _quantile(counts[:128], 0.5) * unit
    if 255 * unit < max(_LEAST_CONTRAST, 5 * noise):
        raise NoDigitError("nothing is drawn on the image")
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
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
