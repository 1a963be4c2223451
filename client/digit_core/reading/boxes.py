"""Geometry of boxes, float32 [k, 4]: left, top, width and height in pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from digit_core.reading.thresholds import THRESHOLDS
from digit_core.results import Box

Boxes = NDArray[np.float32]


def areas(boxes: Boxes) -> NDArray[np.float32]:
    """Return the area of each box, at least 1: float32 [k]."""
    return np.asarray(np.maximum(boxes[:, 2] * boxes[:, 3], 1.0), np.float32)


def intersections(boxes: Boxes, others: Boxes) -> NDArray[np.float32]:
    """Return the area that each box, [k, 4], has in common with each other one, [m, 4]: float32 [k, m]."""
    across, down = _common(boxes, others, 0), _common(boxes, others, 1)
    return np.asarray(np.maximum(across, 0) * np.maximum(down, 0), np.float32)


def overlaps(boxes: Boxes, others: Boxes) -> NDArray[np.float32]:
    """Return the intersection over union of each box, [k, 4], and each other one, [m, 4]: float32 [k, m]."""
    common = intersections(boxes, others)
    return np.asarray(common / (areas(boxes)[:, np.newaxis] + areas(others) - common), np.float32)


def common_rows(boxes: Boxes, others: Boxes) -> NDArray[np.float32]:
    """Return the common rows of each box and each other one as a share of the lower one's: float32 [k, m]."""
    lower = np.minimum(boxes[:, 3, np.newaxis], others[:, 3])
    return np.asarray(_common(boxes, others, 1) / np.maximum(lower, 1.0), np.float32)


def are_near(boxes: Boxes, line: Boxes) -> NDArray[np.bool_]:
    """Return for each box, [k, 4], if it is on the rows of a line, [m, 4], and not far from its ends."""
    reach = THRESHOLDS.max_distance * np.median(line[:, 3])
    is_near = boxes[:, 0] < (line[:, 0] + line[:, 2]).max() + reach
    is_near &= boxes[:, 0] + boxes[:, 2] > line[:, 0].min() - reach
    return np.asarray(is_near & (common_rows(boxes, line) > THRESHOLDS.min_common_rows).any(axis=1))


def _common(boxes: Boxes, others: Boxes, axis: int) -> NDArray[np.float32]:
    """Return the common pixels along an axis: float32 [k, m], negative where boxes are apart."""
    start, length = boxes[:, axis, np.newaxis], boxes[:, 2 + axis, np.newaxis]
    end = np.minimum(start + length, others[:, axis] + others[:, 2 + axis])
    return np.asarray(end - np.maximum(start, others[:, axis]), np.float32)


def enclose(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around one or more boxes."""
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right = max(start + width for start, _, width, _ in boxes)
    bottom = max(start + height for _, start, _, height in boxes)
    return left, top, right - left, bottom - top
