"""Ruled-line removal: a Hough transform finds printed lines, which are removed from a mask of ink."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images import stroke_metrics


@dataclass(frozen=True, slots=True)
class LineRemovalConfig:
    """Parameters of the search for printed lines."""

    max_thickness: int = 5
    """Largest thickness of a printed line, in pixels."""
    max_skew: float = float(np.deg2rad(6))
    """Radians: largest angle between a line and the picture's side."""
    angle_step: float = float(np.deg2rad(0.5))
    """Radians: resolution of the Hough transform."""
    vote_share: float = 0.7
    """Least votes of a candidate, as a share of `min_coverage`; the whole line is verified afterwards."""
    max_candidates: int = 200
    """Largest number of verified candidates: those with the most votes."""
    min_coverage: float = 0.55
    """Least share of a line's length that is ink."""
    edge_share: float = 0.08
    """Share of the picture's width at each edge in which a line must have ink: it runs from edge to edge."""


_CONFIG = LineRemovalConfig()


def remove_lines(mask: NDArray[np.uint8], faint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove horizontal and vertical lines across the whole picture from a mask: uint8 [h, w] of 0 and 1.

    Lines are searched for in `faint`, a mask with a lower threshold: in uneven light only parts of a line are
    as dark as ink. Strokes that cross a line stay whole. Return the mask unchanged if there are no lines.
    """
    if min(mask.shape) < stroke_metrics.MIN_PAGE_SIDE:
        return mask
    without_lines = _remove_horizontal_lines(mask, faint)
    return _remove_horizontal_lines(np.ascontiguousarray(without_lines.T), np.ascontiguousarray(faint.T)).T


def _thin_parts(mask: NDArray[np.uint8], max_thickness: int) -> NDArray[np.uint8]:
    """Vertical top hat: keep parts as thin as printed lines. A pen's strokes are thicker or steeper."""
    thick = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((max_thickness + 1, 1), np.uint8))
    return np.asarray(mask & ~thick, np.uint8)


def _remove_horizontal_lines(mask: NDArray[np.uint8], faint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lines = _find_horizontal_lines(_thin_parts(faint, _CONFIG.max_thickness))
    if not lines:
        return mask
    line_mask = _draw(lines, mask.shape)
    without_lines = mask & ~(line_mask & _thin_parts(mask, _CONFIG.max_thickness))
    # Morphological closing, restricted to the removed lines, reconnects strokes that cross these.
    closed = cv2.morphologyEx(
        without_lines, cv2.MORPH_CLOSE, np.ones((_CONFIG.max_thickness + 2, 3), np.uint8)
    )
    return np.asarray(without_lines | (closed & line_mask & mask), np.uint8)


def _draw(lines: list[tuple[float, float]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Draw each line, given by its rows at the left and at the right edge."""
    drawn = np.zeros(shape, np.uint8)
    for left, right in lines:
        cv2.line(drawn, (0, round(left)), (shape[1] - 1, round(right)), 1, _CONFIG.max_thickness)
    return drawn


def _find_horizontal_lines(thin: NDArray[np.uint8]) -> list[tuple[float, float]]:
    """Return each line from edge to edge, as its rows at the left and at the right edge."""
    width = thin.shape[1]
    found = cv2.HoughLines(
        thin,
        1,
        _CONFIG.angle_step,
        int(_CONFIG.min_coverage * _CONFIG.vote_share * width),
        min_theta=np.pi / 2 - _CONFIG.max_skew,
        max_theta=np.pi / 2 + _CONFIG.max_skew,
    )
    if found is None:
        return []
    thick = cv2.dilate(thin, np.ones((3, 1), np.uint8))
    columns = np.arange(width)
    edge = max(2, int(_CONFIG.edge_share * width))
    lines = []
    for distance, angle in found.reshape(-1, 2)[: _CONFIG.max_candidates]:
        rows = (distance - columns * np.cos(angle)) / np.sin(angle)
        is_inside = (rows >= 0) & (rows < thin.shape[0])
        covered = np.zeros(width, bool)
        covered[is_inside] = thick[rows[is_inside].astype(int), columns[is_inside]] > 0
        if covered.mean() >= _CONFIG.min_coverage and covered[:edge].any() and covered[-edge:].any():
            lines.append((float(rows[0]), float(rows[-1])))
    return lines
