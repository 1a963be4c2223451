"""Printed lines: boxes, tables and rules, whose cells may hold digits, found by their straightness."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images.boxes import slices


@dataclass(frozen=True, slots=True)
class FrameConfig:
    """Parameters of the search. *Side* is the shorter side of a component's box, or of the picture."""

    min_side: int = 16
    """Least side of a box, in pixels."""
    min_straight: float = 0.25
    """Length over which a line is straight, as a share of the side."""
    max_width: float = 0.12
    """Largest width of a line, as a share of the side."""
    max_area: float = 0.5
    """Largest share of a box that its lines cover."""
    min_coverage: float = 0.7
    """Least share of each side of a box that its lines cover."""
    side_share: float = 0.12
    """Distance from the box's side within which its lines lie, as a share of its height or width."""
    min_row_ratio: float = 2.0
    """Least ratio of width to height of a row of cells without a lid: digits are narrower."""
    min_line_share: float = 0.85
    """Least share of such a row's ink that is lines."""
    gap_shape: tuple[int, int] = (5, 5)
    """Height and width, in pixels, of the gaps that are closed where a stroke crosses a line."""
    min_rule: float = 0.5
    """Least length of a rule that runs to the picture's edge, as a share of the picture's width or height."""
    max_rule_width: float = 0.04
    """Largest width of a rule, as a share of the picture's side."""
    edge_share: float = 0.04
    """Distance from the picture's edge at which a rule ends, as a share of the picture's width or height."""


_CONFIG = FrameConfig()


def remove_lines(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove printed lines from a mask, uint8 [h, w] of 0 and 1; strokes that cross a line stay whole."""
    lines = find_lines(mask)
    without_lines = mask & ~lines
    # Morphological closing, restricted to the lines, reconnects strokes.
    closed = cv2.morphologyEx(without_lines, cv2.MORPH_CLOSE, np.ones(_CONFIG.gap_shape, np.uint8))
    return np.asarray(without_lines | (closed & lines), np.uint8)


def find_lines(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the printed lines of a mask: uint8 [h, w] of 0 and 1.

    These are the lines of boxes and tables, and rules that run to the picture's edge.
    """
    lines = np.zeros_like(mask)
    # OpenCV crashes when it labels an array without pixels.
    if not cv2.countNonZero(mask):
        return lines
    _add_rules(mask, lines)
    # Label the box around the ink alone: labelling takes as long as all else.
    box = slices(cv2.boundingRect(mask))
    _add_frames(mask[box], lines[box])
    return lines


def _add_frames(mask: NDArray[np.uint8], lines: NDArray[np.uint8]) -> None:
    """Add the lines of boxes and tables to `lines`."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for number in range(1, count):
        *_, width, height, area = stats[number].tolist()
        side = min(width, height)
        if side < _CONFIG.min_side or area > _CONFIG.max_area * width * height:
            continue
        box = slices(stats[number].tolist())
        component = (labels[box] == number).astype(np.uint8)
        straight = _straight(component, side) | _straight(component.T, side).T
        is_row = width > _CONFIG.min_row_ratio * height
        if _covers_sides(straight) or (is_row and _consists_of(straight, component)):
            lines[box] |= straight


def _add_rules(mask: NDArray[np.uint8], lines: NDArray[np.uint8]) -> None:
    """Add horizontal and vertical rules that run to the picture's edge to `lines`."""
    for oriented, target in ((mask, lines), (mask.T, lines.T)):
        straight = _straight(oriented, min(mask.shape) // 2)
        if cv2.countNonZero(straight) < _CONFIG.min_rule * oriented.shape[1]:
            continue
        count, labels, stats, _ = cv2.connectedComponentsWithStats(straight, connectivity=8)
        width = oriented.shape[1]
        for number in range(1, count):
            left, _, length, _, area = stats[number].tolist()
            ends_at_edge = min(left, width - left - length) <= _CONFIG.edge_share * width
            is_thin = area <= _CONFIG.max_rule_width * min(mask.shape) * length
            if length >= _CONFIG.min_rule * width and ends_at_edge and is_thin:
                target[labels == number] = 1


def _straight(mask: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return thin, nearly horizontal lines."""
    length = max(8, round(_CONFIG.min_straight * side))
    # Dilate across the lines first, since a line that is turned by a few degrees has steps.
    thick = cv2.dilate(np.ascontiguousarray(mask), np.ones((3, 1), np.uint8))
    straight = cv2.morphologyEx(thick, cv2.MORPH_OPEN, np.ones((1, length), np.uint8)) & mask
    kernel = np.ones((max(4, round(_CONFIG.max_width * side)), 1), np.uint8)
    # By default, the outside of the array counts as ink: a line along its side would be broad.
    border = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    return np.asarray(straight & ~cv2.morphologyEx(straight, cv2.MORPH_OPEN, kernel, **border))


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


def _consists_of(lines: NDArray[np.uint8], component: NDArray[np.uint8]) -> bool:
    """True for a row of cells without a lid: nearly all of the component's ink is lines."""
    return cv2.countNonZero(lines) > _CONFIG.min_line_share * cv2.countNonZero(component)
