"""Digits drawn as strokes, in the styles that MNIST hardly knows, for a network to learn beside it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.framing import frame
from digit_training.dataset import Examples
from digit_training.styles import STYLES, Line, lines

HEIGHT = 100
UNSTEADY = 0.08
"""How far a corner is from where it belongs: a standard deviation, of the digit's height."""

JOINED = 0.4
"""The share of digits whose strokes are written without lifting the pen."""

ROUND = 0.7
"""The share whose corners are rounded."""

SLOW = 0.6
"""The share written on a tablet that reports few points of a line, between which it is straight."""

FEWEST, MOST = 7, 12
"""How many points such a tablet reports."""

_BITS = 4


def drawn(count: int, rng: np.random.Generator) -> Examples:
    """That many digits, each style as often as any other, framed as serving frames them."""
    styles = [(label, lines(style)) for label, style in STYLES]
    chosen = [styles[index % len(styles)] for index in range(count)]
    images = [_draw(style, rng) for _, style in chosen]
    return Examples(
        np.array(images, np.uint8).reshape(-1, 28, 28), np.array([label for label, _ in chosen], np.uint8)
    )


def _draw(style: tuple[Line, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    if rng.random() < JOINED:
        style = (sum(style, ()),)
    is_round = rng.random() < ROUND
    points = int(rng.integers(FEWEST, MOST + 1)) if rng.random() < SLOW else None
    width, thickness = HEIGHT * rng.uniform(0.4, 1.1), int(HEIGHT * rng.uniform(0.05, 0.18))
    paper = np.zeros((2 * HEIGHT, 2 * HEIGHT), np.float32)
    for line in style:
        corners = (np.array(line) + rng.normal(0, UNSTEADY, (len(line), 2))) * (width, HEIGHT) + HEIGHT / 2
        curve = _rounded(corners) if is_round else corners
        seen = _reported(curve, points) if points else curve
        cv2.polylines(paper, [(seen * 2**_BITS).astype(np.int32)], False, 1.0, thickness, cv2.LINE_AA, _BITS)
    rows, columns = np.flatnonzero(paper.any(axis=1)), np.flatnonzero(paper.any(axis=0))
    return frame(paper[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _rounded(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth curve through the corners (Catmull and Rom, 1974), ten points for each side."""
    ends = 2 * corners[[0, -1]] - corners[[1, -2]]
    through = np.concatenate((ends[:1], corners, ends[1:]))
    before, start, end, after = (through[i : len(through) - 3 + i, None] for i in range(4))
    part = np.linspace(0, 1, 10)[None, :, None]
    curve = (
        2 * start
        + (end - before) * part
        + (2 * before - 5 * start + 4 * end - after) * part**2
        + (3 * start - before - 3 * end + after) * part**3
    ) / 2
    return np.asarray(curve.reshape(-1, 2), np.float64)


def _reported(curve: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """That many points of the curve, each as far along it from the next."""
    way = np.append(0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1)))
    stops = np.linspace(0, way[-1], points)
    return np.stack([np.interp(stops, way, axis) for axis in curve.T], axis=1)
