"""Whether what stands out on a picture is the strokes of a digit, a sheet, a shadow or a blotch."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.framing import padded

EDGE = 0.2
"""How much ink there is on a pixel that counts as a part of what is drawn."""

SMALLEST = 100
"""In pixels: pictures whose shorter side has fewer show nothing but the digit."""

MOST_PIECES = 7
"""How many pieces the strokes of a digit are in, at most: more are noise."""

_COARSE = 4
# No digit's strokes are this thick, of its length, and fill this much of the box around it, turned as it is,
# or of the tightest outline without dents; none runs along this much of a side of the picture.
_THICK = 0.4
_FULL, _TIGHT = 0.8, 0.9
_ALONG = 0.8
# Of the picture's border: paper lies along more of it, ink along less.
_SURROUNDING = 0.5
# At most so much of a shadow, and of its unevenness, have the strokes in it.
_LEFT, _UNEVEN = 0.5, 0.9
# Of 6,000 of MNIST's digits all but one are within these. What lies, longer than this times its height, is
# an edge. What is thicker than this of its length, or so much thicker in one place than by and large, is a
# blotch or a lamp's image. Strokes no longer than this of what they span are what is left of printed lines,
# and those that keep so near to the picture's border, of its shorter side.
_LYING = 2.5
_THICKEST = 0.6
_BLOTCH = 2.2
_SHORT = 0.7
_RIM = 0.04
# A pen's strokes are at most so much broader in one place, as where they cross, than by and large.
_EVEN = 1.5
# A shadow or a gleam is at least this thick, of its length, with paper beside it not twice as dark or light.
# It fades over so much of what it covers, or the picture's border is so much of its outline.
_BROAD, _FAINT = 0.13, 0.55
_FADING, _CUT_OFF = 0.45, 0.05
_STRONG = 0.8
# One that runs through this much of the picture is thicker than a digit that fills it.
_THROUGH, _BROADER = 0.9, 0.3
_BESIDE = 40  # in parts of a picture


def is_written(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> bool:
    """Whether these can be the strokes of a digit: float32 [h, w] in 0..1, and not all 0.

    `picture` is what they were found on, in levels: float32 [h, w] or [h, w, 3].
    """
    mask = ink > EDGE
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    strokes = mask[top : top + height, left : left + width]
    span, thickest, broad = max(height, width), thickness(strokes), _width(strokes)
    is_blotch = thickest > min(_THICKEST * span, _BLOTCH * broad)
    length = float(strokes.sum()) / broad
    are_many = cv2.connectedComponents(strokes.astype(np.uint8))[0] - 1 > MOST_PIECES
    rim = max(1, round(_RIM * min(mask.shape)))
    is_outside = not mask[rim:-rim, rim:-rim].any()
    if are_many or is_outside or is_blotch or width >= _LYING * height or length <= _SHORT * span:
        return False
    fills = width > _THROUGH * mask.shape[1] or height > _THROUGH * mask.shape[0]
    # The broader it is, the more it has to be bent to be no shade.
    most = _BROADER if fills else _BROAD * max(1.0, length / span)
    is_narrow = thickest < most * span
    return is_narrow or not _is_shade(ink, picture, 2 * length)


def is_slim(strokes: NDArray[np.bool_]) -> bool:
    """Whether this is a line and no blob: bool [h, w], cropped to it."""
    return bool(thickness(strokes) <= _BROADER * max(strokes.shape))


def is_even(ink: NDArray[np.float32]) -> bool:
    """Whether these are as broad all along as a pen's strokes are: float32 [h, w]."""
    mask = ink > EDGE
    return thickness(mask) <= _EVEN * _width(mask)


def _is_shade(ink: NDArray[np.float32], picture: NDArray[np.float32], outline: float) -> bool:
    """Whether what is broad is a shadow or a gleam: `outline` is how long its edge is, in pixels.

    What a pen as broad and as faint has drawn has clear edges, all of them on the paper.
    """
    mask = ink > EDGE
    is_fading = np.count_nonzero(mask & (ink < _STRONG)) > _FADING * np.count_nonzero(mask)
    is_cut_off = sum(map(np.count_nonzero, _sides(mask))) > _CUT_OFF * outline
    return bool(is_fading or is_cut_off) and _likeness(ink, picture) > _FAINT


def _likeness(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> float:
    """How dark it is where the ink is strong, as a share of the paper beside it, or this of that: 0..1."""
    mask, strong = (ink > EDGE).astype(np.uint8), ink > _STRONG
    side = 2 * (max(mask.shape) // _BESIDE) + 1
    around = cv2.dilate(mask, np.ones((side, side), np.uint8)) > 0
    beside = around & (cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0)
    if not strong.any() or not beside.any():
        return 0.0
    levels = picture.reshape(*mask.shape, -1)
    # Black is no share of anything.
    here, there = (np.median(levels[where], axis=0) + 1 for where in (strong, beside))
    return float(np.minimum(here / there, there / here).min())


def is_a_thing(mask: NDArray[np.bool_]) -> bool:
    """Whether this is a sheet of paper, a table's edge or a shadow, and not strokes: bool [h, w]."""
    return is_full(mask) or any(side.mean() > _ALONG for side in _sides(mask))


def surrounds(mask: NDArray[np.bool_]) -> bool:
    """Whether this is along most of the picture's border, where paper is and a digit not: bool [h, w]."""
    return bool(np.concatenate(_sides(mask)).mean() > _SURROUNDING)


def is_full(mask: NDArray[np.bool_]) -> bool:
    """Whether this fills a broad box: bool [h, w]."""
    coarse = cv2.findNonZero(mask[::_COARSE, ::_COARSE].astype(np.uint8))
    if coarse is None:
        return False
    _, sides, _ = cv2.minAreaRect(coarse)
    longer, shorter = _COARSE * (max(sides) + 1), _COARSE * (min(sides) + 1)
    # The outline runs through the middles of the outermost pixels.
    outline = _COARSE**2 * cv2.contourArea(cv2.convexHull(coarse)) + _COARSE * (longer + shorter)
    # A bold 1 is as full as a sheet, but slim.
    fills = shorter > longer / 2 and mask.sum() > min(_FULL * longer * shorter, _TIGHT * outline)
    return bool(fills and thickness(_filled(mask)) > _THICK * longer)


def inside(sheet: NDArray[np.bool_], rim: int) -> NDArray[np.bool_]:
    """The sheet with its holes and without its outermost pixels, so many: bool [h, w]."""
    whole = _filled(sheet).astype(np.uint8)
    return np.asarray(cv2.erode(whole, np.ones((2 * rim + 1,) * 2, np.uint8)) > 0)


def is_finer(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether the one shows strokes where the other shows more, and not just what is left of bold ones."""
    if mask.sum() > _LEFT * other.sum():
        return False
    thickest, others = thickness(mask), thickness(other)
    # How much thicker than by and large: as much of a stroke, twice as much of a disc.
    return thickest <= others and thickest / _width(mask) < _UNEVEN * others / _width(other)


def _width(mask: NDArray[np.bool_]) -> float:
    """Of the strokes in the mask, by and large, in pixels: what they cover for each two pixels of edge."""
    ink = padded(mask.astype(np.uint8), 1)
    inside = cv2.erode(ink, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return 2 * float(ink.sum()) / (float(ink.sum()) - float(inside.sum()))


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the holes that a digit leaves in a sheet: bool [h, w]."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, -1) > 0)


def thickness(mask: NDArray[np.bool_]) -> float:
    """Of what is in the mask, where it is thickest, in pixels: bool [h, w]."""
    return 2 * float(cv2.distanceTransform(padded(mask.astype(np.uint8), 1), cv2.DIST_L2, 3).max())


def _sides(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """What of it is along each of the picture's four sides."""
    return mask[0], mask[-1], mask[:, 0], mask[:, -1]
