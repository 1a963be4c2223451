"""Printed lines: rules across the picture, and the lines of boxes, tables and rows of cells."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images import line_removal, stroke_metrics
from digit_client.images.boxes import slices


@dataclass(frozen=True, slots=True)
class FrameConfig:
    """Parameters of the search. *Side* is the shorter side of a component's box."""

    min_side: int = 16
    """Least side of a box, in pixels."""
    min_straight: float = 0.25
    """Length over which a line is straight, as a share of the side."""
    max_width: float = 0.15
    """Largest width of a line, as a share of the side."""
    max_area: float = 0.5
    """Largest share of a box that its lines cover."""
    min_length: float = 0.5
    """Least length of a line, as a share of the component's width or height: strokes in cells are shorter."""
    max_break: int = 9
    """Longest break in a line, in pixels."""
    min_coverage: float = 0.7
    """Least share of each side of a box that its lines cover."""
    side_share: float = 0.12
    """Distance from the box's side within which its lines lie, as a share of its height or width."""
    min_row_ratio: float = 2.0
    """Least ratio of width to height of a row of cells without a lid: digits are narrower."""
    min_base: float = 0.9
    """Least share of such a row's width that its base line covers."""
    max_thickening: float = 1.25
    """Largest width of a line's ink, as a multiple of the line's mean width: thicker ink is a stroke."""
    gap_shape: tuple[int, int] = (5, 5)
    """Height and width, in pixels, of the gaps that are closed where a stroke crosses a line."""


_CONFIG = FrameConfig()


def remove_lines(mask: NDArray[np.uint8], faint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove printed lines from a mask, uint8 [h, w] of 0 and 1; strokes that cross a line stay whole.

    Lines are searched for in `faint`, a mask with a lower threshold, in which faint lines have no breaks.
    """
    horizontal, vertical = find_lines(faint)
    lines = _thin_parts(mask, horizontal) | _thin_parts(mask.T, vertical.T).T
    without_lines = mask & ~lines
    # Morphological closing, restricted to the lines, reconnects strokes.
    closed = cv2.morphologyEx(without_lines, cv2.MORPH_CLOSE, np.ones(_CONFIG.gap_shape, np.uint8))
    return np.asarray(without_lines | (closed & lines), np.uint8)


def find_lines(mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the horizontal and the vertical printed lines of a mask: uint8 [h, w] of 0 and 1 each."""
    horizontal, vertical = _find_rules(mask), _find_rules(mask.T).T
    # OpenCV crashes when it labels an array without pixels.
    if cv2.countNonZero(mask):
        # Label the box around the ink alone: labelling takes as long as all else.
        box = slices(cv2.boundingRect(mask))
        _add_frames(mask[box], horizontal[box], vertical[box])
    return horizontal, vertical


def _find_rules(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the horizontal lines across the picture."""
    if mask.shape[1] < stroke_metrics.MIN_PAGE_SIDE:
        return np.zeros_like(mask)
    return line_removal.find_horizontal_lines(np.ascontiguousarray(mask))


def _add_frames(mask: NDArray[np.uint8], horizontal: NDArray[np.uint8], vertical: NDArray[np.uint8]) -> None:
    """Add the lines of boxes, tables and rows of cells."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for number in range(1, count):
        *_, width, height, area = stats[number].tolist()
        side = min(width, height)
        if side < _CONFIG.min_side or area > _CONFIG.max_area * width * height:
            continue
        box = slices(stats[number].tolist())
        component = (labels[box] == number).astype(np.uint8)
        rows, columns = _straight(component, side), _straight(component.T, side).T
        is_box = _covers_sides(rows | columns)
        has_base = width > _CONFIG.min_row_ratio * height and rows.any(axis=0).mean() > _CONFIG.min_base
        if is_box or has_base:
            horizontal[box] |= rows
        # Vertical strokes that stand on an underline are digits; a line at its end is a cell's.
        if is_box or (has_base and _has_end(columns)):
            vertical[box] |= columns


def _straight(mask: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the thin, nearly horizontal lines along most of a component."""
    length = max(8, round(_CONFIG.min_straight * side))
    # Dilate across the lines first, since a line that is turned by a few degrees has steps.
    thick = cv2.dilate(np.ascontiguousarray(mask), np.ones((3, 1), np.uint8))
    straight = cv2.morphologyEx(thick, cv2.MORPH_OPEN, np.ones((1, length), np.uint8)) & mask
    kernel = np.ones((max(4, round(_CONFIG.max_width * side)), 1), np.uint8)
    # By default, the outside of the array counts as ink: a line along its side would be broad.
    border = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    thin = straight & ~cv2.morphologyEx(straight, cv2.MORPH_OPEN, kernel, **border)
    joined = cv2.dilate(thin, np.ones((3, _CONFIG.max_break), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    is_long = stats[:, cv2.CC_STAT_WIDTH] >= _CONFIG.min_length * mask.shape[1]
    is_long[0] = False
    return np.asarray(thin & is_long[labels], np.uint8)


def _covers_sides(lines: NDArray[np.uint8]) -> bool:
    """True if lines lie along all four sides of the box."""
    height, width = lines.shape
    rows, columns = (max(3, round(_CONFIG.side_share * length)) for length in (height, width))
    sides = (
        lines[:rows].any(axis=0),
        lines[-rows:].any(axis=0),
        lines[:, :columns].any(axis=1),
        lines[:, -columns:].any(axis=1),
    )
    return all(side.mean() > _CONFIG.min_coverage for side in sides)


def _has_end(vertical: NDArray[np.uint8]) -> bool:
    """True if a vertical line stands at the left or right end of the box."""
    height = len(vertical)
    margin = max(3, round(_CONFIG.side_share * height))
    ends = vertical[:, :margin], vertical[:, -margin:]
    return any(end.any(axis=1).mean() >= _CONFIG.min_length for end in ends)


def _thin_parts(mask: NDArray[np.uint8], lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the vertical runs of the mask that meet horizontal lines and are hardly thicker than these."""
    found = np.zeros_like(mask)
    ink = mask & lines
    if not cv2.countNonZero(ink):
        return found
    count, labels, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    for number in range(1, count):
        left, top, width, height, area = stats[number].tolist()
        limit = int(_CONFIG.max_thickening * area / width) + 1
        columns = slice(left, left + width)
        rows = slice(max(0, top - limit - 1), top + height + limit + 1)
        line = (labels[rows, columns] == number).astype(np.uint8)
        thin = line_removal.thin_parts(np.ascontiguousarray(mask[rows, columns]), limit)
        # Include the soft edge of the line.
        found[rows, columns] |= thin & cv2.dilate(line, np.ones((3, 1), np.uint8))
    return found
