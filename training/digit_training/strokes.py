"""Digits drawn as strokes: common ways of writing that MNIST, collected in America, hardly knows."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.framing import frame
from digit_training.dataset import Examples

Line = tuple[tuple[float, float], ...]
"""The corners of a line, x and y of each, from 0, 0 at the top left to 1, 1."""

STYLES: tuple[tuple[int, tuple[Line, ...]], ...] = (
    (0, (((0.45, 0), (0, 0.35), (0.1, 0.85), (0.5, 1), (0.95, 0.7), (0.9, 0.2), (0.5, 0)),)),
    # A flag, short or long, alone or with a foot: without them a network takes the flag for the bar of a 7.
    (1, (((0.25, 0.25), (0.5, 0), (0.5, 1)),)),
    (1, (((0.15, 0.45), (0.55, 0), (0.55, 1)),)),
    (1, (((0, 0.45), (0.95, 0), (0.5, 1)),)),
    (1, (((0.1, 0.65), (1, 0), (0.3, 1)),)),
    (1, (((0.25, 0.25), (0.5, 0), (0.5, 1)), ((0.2, 1), (0.8, 1)))),
    (1, (((0.15, 0.45), (0.55, 0), (0.55, 1)), ((0.25, 1), (0.85, 1)))),
    (1, (((0, 0.25), (0.25, 0), (0.25, 0.95)), ((0.05, 1), (1, 0.95)))),
    (2, (((0.05, 0.2), (0.45, 0), (0.75, 0.25), (0.05, 1), (1, 0.95)),)),
    (2, (((0.2, 0.2), (0.5, 0), (0.8, 0.3), (0.35, 0.95), (0, 0.9), (0.3, 0.8), (1, 1)),)),
    (3, (((0, 0), (0.95, 0), (0.45, 0.4), (1, 0.65), (0.7, 1), (0, 0.95)),)),
    # Open and closed; in one pull of the pen, with the stem to the right, or through the loop.
    (4, (((0.2, 0), (0.1, 0.6), (0.85, 0.6)), ((0.7, 0.1), (0.65, 1)))),
    (4, (((0.3, 0), (0, 0.65), (0.8, 0.6)), ((0.95, 0.2), (0.75, 1)))),
    (4, (((0.65, 1), (0.65, 0), (0.05, 0.65), (0.9, 0.65)),)),
    (4, (((0.35, 0), (0, 0.6), (0.7, 0.6), (0.95, 0.3), (0.8, 1)),)),
    (4, (((0.5, 0), (0, 0.65), (1, 0.45), (0.65, 1)),)),
    (4, (((0.2, 0), (0, 0.6), (0.65, 0.65), (0.95, 0.45), (0.75, 0.4), (0.7, 1)),)),
    (4, (((0.6, 0), (0, 0.75), (1, 0.75)), ((0.7, 0.45), (0.6, 1)))),
    (4, (((0.55, 0), (0, 0.45), (0.5, 0.6), (1, 0.4), (0.6, 0.05), (0.5, 1)),)),
    # With the hat first, and last.
    (5, (((1, 0), (0.3, 0.05), (0.2, 0.4), (0.75, 0.5), (0.75, 0.9), (0, 1)),)),
    (5, (((0.95, 0), (0.2, 0.4), (0.85, 0.65), (0, 1)),)),
    (5, (((0.15, 0.05), (0.1, 0.45), (0.6, 0.45), (0.8, 0.75), (0.45, 1), (0, 0.9)), ((0.15, 0.05), (1, 0)))),
    (6, (((0.7, 0), (0.1, 0.5), (0.15, 0.95), (0.75, 0.95), (0.9, 0.7), (0.2, 0.75)),)),
    # Without a bar across, and with one; with a serif.
    (7, (((0.1, 0), (0.85, 0), (0.4, 1)),)),
    (7, (((0, 0.15), (0.3, 0), (0.9, 0.05), (0.3, 1)),)),
    (7, (((0.1, 0), (0.85, 0), (0.4, 1)), ((0.3, 0.5), (0.9, 0.5)))),
    (7, (((0.1, 0.15), (0.1, 0), (0.85, 0), (0.4, 1)), ((0.3, 0.5), (0.9, 0.5)))),
    (7, (((0, 0.05), (0.7, 0.05), (0.7, 0.4), (0.35, 1)), ((0.05, 0.65), (1, 0.5)))),
    (7, (((0, 0.05), (0.65, 0), (0.7, 0.45), (0.4, 1), (0.15, 0.85), (0.3, 0.6), (1, 0.6)),)),
    (7, (((0.05, 0.1), (0.6, 0), (0.8, 0.2), (0.55, 0.95), (0.25, 0.9), (0.1, 0.55), (1, 0.5)),)),
    (8, (((0.9, 0.1), (0.4, 0), (0.2, 0.25), (0.85, 0.75), (0.5, 1), (0.1, 0.8), (0.9, 0.15)),)),
    (8, (((0.1, 0.05), (0.8, 0.65), (0.5, 1), (0.15, 0.75), (0.9, 0.05), (0.1, 0.05)),)),
    # In one pull: the loop, closed or not, then the stem, straight or with a tail to the left.
    (9, (((0.95, 0.1), (0.4, 0), (0.1, 0.3), (0.5, 0.45), (0.9, 0.1), (0.85, 1)),)),
    (9, (((0.95, 0.1), (0.35, 0), (0.1, 0.25), (0.5, 0.4), (0.9, 0.15), (0.85, 0.75), (0.5, 1), (0, 0.95)),)),
    (9, (((0.85, 0.05), (0.45, 0.05), (0.4, 0.35), (0.9, 0.2), (0.9, 0.8), (0.45, 1), (0, 0.9)),)),
    (9, (((0.9, 0.2), (0.5, 0), (0, 0.15), (0.5, 0.35), (1, 0.2), (0.4, 1)),)),
)

HEIGHT = 100
UNSTEADY = 0.06
"""How far a corner is from where it belongs: a standard deviation, of the digit's height."""

JOINED = 0.4
"""The share of digits whose strokes are written without lifting the pen."""

ROUND = 0.7
"""The share whose corners are rounded."""

_BITS = 4


def drawn(count: int, rng: np.random.Generator) -> Examples:
    """That many digits, each style as often as any other, framed as serving frames them."""
    styles = [STYLES[index % len(STYLES)] for index in range(count)]
    images = [_draw(lines, rng) for _, lines in styles]
    return Examples(
        np.array(images, np.uint8).reshape(-1, 28, 28), np.array([label for label, _ in styles], np.uint8)
    )


def _draw(lines: tuple[Line, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    if rng.random() < JOINED:
        lines = (sum(lines, ()),)
    is_round = rng.random() < ROUND
    width, thickness = HEIGHT * rng.uniform(0.4, 1.1), int(HEIGHT * rng.uniform(0.05, 0.18))
    paper = np.zeros((2 * HEIGHT, 2 * HEIGHT), np.float32)
    for line in lines:
        corners = (np.array(line) + rng.normal(0, UNSTEADY, (len(line), 2))) * (width, HEIGHT) + HEIGHT / 2
        fixed = ((_rounded(corners) if is_round else corners) * 2**_BITS).astype(np.int32)
        cv2.polylines(paper, [fixed], False, 1.0, thickness, cv2.LINE_AA, _BITS)
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
