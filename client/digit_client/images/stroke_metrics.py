"""Whether what stands out on a picture is the strokes of a digit, a shadow or a blotch."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images.scaling import padded

EDGE = 0.2
"""How much ink there is on a pixel that counts as a part of what is drawn."""

SMALLEST = 100
"""In pixels: where the shorter side has fewer, strokes are as fine as printed lines, and often cut off."""

MOST_PIECES = 9
"""How many pieces the strokes of a digit are in, at most: more are noise."""

# What is thicker than this of its length, or so much thicker in one place than by and large, is a blotch or a
# lamp's image. Strokes no longer than this of what they span are what is left of printed lines.
_THICKEST = 0.5
_BLOTCH = 3.0
_SHORT = 0.7
# What the picture's border cuts off is a shadow, a gleam or a table where it differs less from what is beside
# it than this, or where the border is so much of its outline. What is finer than this, of its length, is the
# edge of something but where it is black on white or white on black.
_FAINT, _CUT_OFF, _FINE, _BLACK = 0.52, 0.34, 0.04, 0.1
# What differs less than the one and fades over more of what it covers than the other is a shade, sooner where
# it is broader than this, of its length.
_SHADE, _BROAD_SHADE, _BROAD = (0.9, 0.6), (0.7, 0.55), 0.13
_STRONG = 0.8
# What differs less than this is a shade or noise, where nothing else tells it from strokes: of both and so
# many levels, since on a dark board a few are a large share.
_WEAK, _DIM = 0.8, 40
# A pen's strokes are at most so much broader in one place, as where they cross, than by and large.
_EVEN = 1.5
# A line is at most this thick, of its length.
_BROADER = 0.3
_BESIDE = 40  # in parts of a picture


def is_written(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> bool:
    """Whether these can be the strokes of a digit: float32 [h, w] in 0..1, and not all 0.

    `picture` is what they were found on, in levels: float32 [h, w] or [h, w, 3].
    """
    mask = ink > EDGE
    strokes = _cropped(mask)
    span, thickest, broad = max(strokes.shape), thickness(strokes), _width(strokes)
    length = float(strokes.sum()) / broad
    are_many = cv2.connectedComponents(strokes.astype(np.uint8))[0] - 1 > MOST_PIECES
    is_blotch = thickest > min(_THICKEST * span, _BLOTCH * broad)
    # Each stroke has two edges.
    cut_off = sum(map(np.count_nonzero, sides(mask))) / (2 * length)
    if are_many or is_blotch or cut_off > _CUT_OFF or length <= _SHORT * span:
        return False
    # The broader it is, the more it has to be bent to be no shade.
    faintest, most = _BROAD_SHADE if thickest > _BROAD * max(span, length) else _SHADE
    is_fading = np.count_nonzero(mask & (ink < _STRONG)) > most * np.count_nonzero(mask)
    if not cut_off and not is_fading:
        return True
    if cut_off:
        faintest = _FAINT if thickest > _FINE * span else _BLACK
    return _likeness(ink, picture) <= faintest


def is_slim(strokes: NDArray[np.bool_]) -> bool:
    """Whether this is a line and no blob: bool [h, w], cropped to it."""
    return bool(thickness(strokes) <= _BROADER * max(strokes.shape))


def is_even(ink: NDArray[np.float32]) -> bool:
    """Whether these are as broad all along as a pen's strokes are: float32 [h, w]."""
    return _unevenness(ink) <= _EVEN


def is_of_a_pen(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> bool:
    """Whether these can be strokes and are as even as a pen's: both as for `is_written`."""
    return is_even(ink) and is_written(ink, picture)


def is_clear(ink: NDArray[np.float32], picture: NDArray[np.float32]) -> bool:
    """Whether these can be strokes and differ much from the paper beside them: both as for `is_written`."""
    return is_written(ink, picture) and _likeness(ink, picture, _DIM) <= _WEAK


def roughness(ink: NDArray[np.float32]) -> float:
    """How little this is like one line of a pen, which has 1: float32 [h, w].

    It is more for what is broader in one place than by and large, and for each piece.
    """
    return _unevenness(ink) * (cv2.connectedComponents((ink > EDGE).astype(np.uint8))[0] - 1)


def _unevenness(ink: NDArray[np.float32]) -> float:
    mask = ink > EDGE
    return thickness(mask) / _width(mask)


def _likeness(ink: NDArray[np.float32], picture: NDArray[np.float32], dim: int = 1) -> float:
    """How dark it is where the ink is strong, as a share of the paper beside it, or this of that: 0..1.

    So many levels are added to both, one at least: black is no share of anything.
    """
    mask, strong = (ink > EDGE).astype(np.uint8), ink > _STRONG
    side = 2 * (max(mask.shape) // _BESIDE) + 1
    around = cv2.dilate(mask, np.ones((side, side), np.uint8)) > 0
    beside = around & (cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0)
    if not strong.any() or not beside.any():
        return 0.0
    levels = picture.reshape(*mask.shape, -1)
    here, there = (np.median(levels[where], axis=0) + dim for where in (strong, beside))
    return float(np.minimum(here / there, there / here).min())


def _width(mask: NDArray[np.bool_]) -> float:
    """Of the strokes in the mask, by and large, in pixels: what they cover for each two pixels of edge."""
    ink = padded(_cropped(mask).astype(np.uint8), 1)
    inside = cv2.erode(ink, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return 2 * float(ink.sum()) / (float(ink.sum()) - float(inside.sum()))


def thickness(mask: NDArray[np.bool_]) -> float:
    """Of what is in the mask, where it is thickest, in pixels: bool [h, w]."""
    ink = padded(_cropped(mask).astype(np.uint8), 1)
    return 2 * float(cv2.distanceTransform(ink, cv2.DIST_L2, 3).max())


def _cropped(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return mask[top : top + height, left : left + width]


def sides(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """What of it is along each of the picture's four sides."""
    return mask[0], mask[-1], mask[:, 0], mask[:, -1]
