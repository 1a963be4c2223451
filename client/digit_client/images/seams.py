"""Seam cutting: touching digits are cut along the vertical paths that cross the least ink."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SeamConfig:
    """Parameters of the search for seams, on a component scaled to `side` rows."""

    side: int = 40
    """Height, in rows, at which seams are searched for."""
    anchors: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Heights at which each local minimum of the cost starts a seam, as shares of the component's height."""
    step_cost: float = 0.03
    """Cost of each row: a straight seam costs less than a winding one."""
    slant_cost: float = 0.04
    """Cost of each step aside."""
    max_cost: float = 12.0
    """Largest ink, in rows, that a seam crosses: twice the width of a bold stroke."""
    min_distance: int = 5
    """Least mean distance of two seams, and of a seam from the component's sides, in columns."""
    max_seams: int = 11
    """Largest number of seams of a component: those that cross the least ink."""


_CONFIG = SeamConfig()


def cut(mask: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Label the pieces of a component from left to right: int32 [h, w], from 0 on.

    Takes the component, uint8 [h, w] of 0 and 1, cropped to its box. Without a seam, all labels are 0.
    """
    height, width = mask.shape
    columns = max(1, round(width * _CONFIG.side / height))
    small = cv2.resize(mask.astype(np.float32), (columns, _CONFIG.side), interpolation=cv2.INTER_AREA)
    pieces = np.zeros(mask.shape, np.int32)
    rows = np.minimum(np.arange(height) * _CONFIG.side // height, _CONFIG.side - 1)
    for seam in _seams(small):
        border = (seam[rows] + 0.5) * width / columns
        pieces += np.arange(width)[None] >= border[:, None]
    return pieces


def _seams(ink: NDArray[np.float32]) -> list[NDArray[np.intp]]:
    """Return the column of each seam at each row, from left to right."""
    cost = ink + np.float32(_CONFIG.step_cost)
    above, below = _accumulate(cost)
    total = above + below - cost
    paths = above.tolist(), below.tolist()
    found: list[tuple[float, NDArray[np.intp]]] = []
    for anchor in _CONFIG.anchors:
        row = int(anchor * (len(ink) - 1))
        for column in _local_minima(total[row]):
            if total[row, column] <= _CONFIG.max_cost:
                found.append((float(total[row, column]), _trace(*paths, row, column)))
    found.sort(key=lambda item: item[0])
    kept: list[NDArray[np.intp]] = []
    last = ink.shape[1] - 1
    for _, seam in found:
        position = float(seam.mean())
        is_inside = min(position, last - position) >= _CONFIG.min_distance / 2
        if is_inside and all(np.abs(seam - other).mean() >= _CONFIG.min_distance for other in kept):
            kept.append(seam)
    return sorted(kept[: _CONFIG.max_seams], key=lambda seam: float(seam.mean()))


def _accumulate(cost: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the least cost of a path from the first row, and from the last, to each pixel: [2, h, w]."""
    height, width = cost.shape
    # Columns of infinite cost on both sides.
    total = np.full((2, height, width + 2), np.inf, np.float32)
    total[0, :, 1:-1], total[1, :, 1:-1] = cost, cost[::-1]
    slant = np.float32(_CONFIG.slant_cost)
    for row in range(1, height):
        before = total[:, row - 1]
        aside = np.minimum(before[:, 2:], before[:, :-2]) + slant
        total[:, row, 1:-1] += np.minimum(before[:, 1:-1], aside)
    return np.stack((total[0, :, 1:-1], total[1, ::-1, 1:-1]))


def _local_minima(costs: NDArray[np.float32]) -> list[int]:
    """Return the middle column of each local minimum, plateaus included."""
    changes = np.flatnonzero(np.diff(costs)) + 1
    runs = np.split(np.arange(len(costs)), changes)
    values = [float(costs[run[0]]) for run in runs]
    return [
        int(run[len(run) // 2])
        for number, run in enumerate(runs)
        if 0 < number < len(runs) - 1 and values[number] < min(values[number - 1], values[number + 1])
    ]


def _trace(above: list[list[float]], below: list[list[float]], row: int, column: int) -> NDArray[np.intp]:
    """Return the columns of the cheapest path through a pixel: intp [h]."""
    seam = [column] * len(above)
    for total, rows in ((above, range(row - 1, -1, -1)), (below, range(row + 1, len(above)))):
        at = column
        for current in rows:
            costs = total[current]
            near = range(max(0, at - 1), min(len(costs), at + 2))
            at = min(near, key=lambda other: costs[other] + _CONFIG.slant_cost * (other != at))
            seam[current] = at
    return np.array(seam, np.intp)
