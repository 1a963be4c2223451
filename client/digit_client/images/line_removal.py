"""Printed lines on paper, which are no ink."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images import stroke_metrics

_THICKEST = 5
# Lines are looked for within six degrees of level, half a degree apart.
_LEAN = np.deg2rad(6)
_STEP = np.deg2rad(0.5)
# Of a line's length: how much of it must be there, and how near to both edges it must come.
_SUPPORT = 0.55
_EDGE = 0.08


def remove(mask: NDArray[np.uint8], faint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take lines that run across the whole picture, or down it, off a mask of ink: uint8 [h, w] of 0 and 1.

    They are looked for in `faint`, which holds what is fainter than ink as well: where the light changes,
    only parts of a line are as dark as ink. Strokes that cross a line stay whole. Returns the mask itself
    where there are no such lines.
    """
    if min(mask.shape) < stroke_metrics.SMALLEST:
        return mask
    level = _without_level_lines(mask, faint)
    return _without_level_lines(np.ascontiguousarray(level.T), np.ascontiguousarray(faint.T)).T


def _without_level_lines(mask: NDArray[np.uint8], faint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lines = _level_lines(_thin(faint))
    if not lines:
        return mask
    drawn = np.zeros_like(mask)
    for left, right in lines:
        cv2.line(drawn, (0, round(left)), (mask.shape[1] - 1, round(right)), 1, _THICKEST)
    rest = mask & ~(drawn & _thin(mask))
    # Strokes that a line went through are closed again, but only where it was.
    closed = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((_THICKEST + 2, 3), np.uint8))
    return np.asarray(rest | (closed & drawn & mask), np.uint8)


def _thin(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is thin up and down: printed lines are, while a pen's strokes are thicker or stand steeper."""
    thick = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((_THICKEST + 1, 1), np.uint8))
    return np.asarray(mask & ~thick, np.uint8)


def _level_lines(thin: NDArray[np.uint8]) -> list[tuple[float, float]]:
    """The lines from edge to edge: how high each is at the left and at the right edge."""
    width = thin.shape[1]
    middle = np.pi / 2
    found = cv2.HoughLines(
        thin,
        1,
        _STEP,
        int(_SUPPORT * 0.7 * width),
        min_theta=middle - _LEAN,
        max_theta=middle + _LEAN,
    )
    if found is None:
        return []
    thick = cv2.dilate(thin, np.ones((3, 1), np.uint8))
    columns = np.arange(width)
    lines = []
    for distance, angle in found.reshape(-1, 2)[:200]:
        rows = (distance - columns * np.cos(angle)) / np.sin(angle)
        inside = (rows >= 0) & (rows < thin.shape[0])
        there = np.zeros(width, bool)
        there[inside] = thick[rows[inside].astype(int), columns[inside]] > 0
        edge = max(2, int(_EDGE * width))
        if there.mean() >= _SUPPORT and there[:edge].any() and there[-edge:].any():
            lines.append((float(rows[0]), float(rows[-1])))
    return lines
