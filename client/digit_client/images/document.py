"""Sheets of paper, tables and shadows: what stands out on a picture and is more than strokes."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images.stroke_metrics import sides, thickness

_COARSE = 4
# No digit's strokes are this thick, of its length, and fill this much of the box around it, turned as it is,
# or of the tightest outline without dents; none runs along this much of a side of the picture.
_THICK = 0.4
_FULL, _TIGHT = 0.8, 0.9
_ALONG = 0.8
# Of the picture's border: paper lies along more of it, ink along less.
_SURROUNDING = 0.5
# Of a side of the picture: so much of it shows what is beside a sheet.
_BESIDE = 0.25
# A sheet is more paper than this, of its outline, and this of the box around it, turned as it is.
_PAPER, _RECTANGULAR = 0.6, 0.82
# One that is written on is more than this of its outline without dents, and that more than the next of the
# box; less than the last of it is paper.
_CONVEX, _CORNERED, _BLANK = 0.95, 0.9, 0.97
# Of a picture: so much of it a sheet covers at least. Of _COARSE pixels: what is narrower is no part of it.
_LEAST, _SCRAP = 0.05, 3


def is_a_thing(mask: NDArray[np.bool_]) -> bool:
    """Whether this is a sheet of paper, a table's edge or a shadow, and not strokes: bool [h, w]."""
    return is_full(mask) or any(side.mean() > _ALONG for side in sides(mask))


def surrounds(mask: NDArray[np.bool_]) -> bool:
    """Whether this is along most of the picture's border, where paper is and a digit not: bool [h, w]."""
    return bool(np.concatenate(sides(mask)).mean() > _SURROUNDING)


def is_full(mask: NDArray[np.bool_]) -> bool:
    """Whether this fills a broad box: bool [h, w]."""
    coarse = cv2.findNonZero(mask[::_COARSE, ::_COARSE].astype(np.uint8))
    if coarse is None:
        return False
    longer, shorter, hull = _outline(coarse)
    # A bold 1 is as full as a sheet, but slim.
    fills = shorter > longer / 2 and mask.sum() > min(_FULL * longer * shorter, _TIGHT * hull)
    return bool(fills and thickness(_filled(mask)) > _THICK * longer)


def sheet(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The sheet of paper that this is, with what is written on it: bool [h, w]. None where it is none."""
    if mask.mean() < _LEAST or not any(side.mean() > _BESIDE for side in sides(~mask)):
        return None
    paper = _largest(mask[::_COARSE, ::_COARSE])
    points = cv2.findNonZero(paper.astype(np.uint8))
    if points is None:
        return None
    longer, shorter, hull = _outline(points)
    is_rectangular = hull >= _RECTANGULAR * longer * shorter
    if not is_rectangular or _COARSE**2 * _filled(paper).sum() < _PAPER * hull:
        return None
    corners = cv2.convexHull(points) * _COARSE
    return np.asarray(cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), corners, 1) > 0)


def is_written_on(mask: NDArray[np.bool_]) -> bool:
    """Whether this is the paper of a sheet around what is written on it: bool [h, w]."""
    whole = sheet(mask)
    if whole is None:
        return False
    longer, shorter, _ = _outline(cv2.findNonZero(whole[::_COARSE, ::_COARSE].astype(np.uint8)))
    hull, filled = np.count_nonzero(whole), np.count_nonzero(_filled(mask))
    # A bold 8 has dents, and a bold 0 no corners.
    is_a_rectangle = filled > _CONVEX * hull > _CONVEX * _CORNERED * longer * shorter
    return bool(is_a_rectangle and np.count_nonzero(mask) < _BLANK * filled)


def inside(sheet: NDArray[np.bool_], rim: int) -> NDArray[np.bool_]:
    """Without its outermost pixels, so many: bool [h, w]."""
    return np.asarray(cv2.erode(sheet.astype(np.uint8), np.ones((2 * rim + 1,) * 2, np.uint8)) > 0)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Its largest piece, without scraps that hang on it."""
    kernel = np.ones((_SCRAP, _SCRAP), np.uint8)
    # What is beyond the picture is as what is at its border.
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    return np.asarray((labels == 1 + boxes[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else opened > 0)


def _outline(points: NDArray[np.int32]) -> tuple[float, float, float]:
    """The sides of the tightest box around them, turned as it is, the longer first, and the area of their
    outline without dents, in pixels: points of the coarse mask, [n, 1, 2].
    """
    _, lengths, _ = cv2.minAreaRect(points)
    longer, shorter = _COARSE * (max(lengths) + 1), _COARSE * (min(lengths) + 1)
    # The outline runs through the middles of the outermost pixels.
    hull = _COARSE**2 * cv2.contourArea(cv2.convexHull(points)) + _COARSE * (longer + shorter)
    return longer, shorter, hull


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the holes that a digit leaves in a sheet: bool [h, w]."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, -1) > 0)
