"""Digits drawn as strokes: common ways of writing that MNIST, collected in America, hardly knows."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.framing import frame
from digit_training.dataset import Examples

Line = tuple[tuple[float, float], ...]
"""The corners of a line, x and y of each, from 0, 0 at the top left to 1, 1."""

STYLES: tuple[tuple[int, tuple[Line, ...]], ...] = (
    # A flag, short or long, alone or with a foot: without them a network takes the flag for the bar of a 7.
    (1, (((0.25, 0.25), (0.5, 0), (0.5, 1)),)),
    (1, (((0.15, 0.45), (0.55, 0), (0.55, 1)),)),
    (1, (((0.25, 0.25), (0.5, 0), (0.5, 1)), ((0.2, 1), (0.8, 1)))),
    (1, (((0.15, 0.45), (0.55, 0), (0.55, 1)), ((0.25, 1), (0.85, 1)))),
    # Without a bar across, and with one; with a serif.
    (7, (((0.1, 0), (0.85, 0), (0.4, 1)),)),
    (7, (((0.1, 0), (0.85, 0), (0.4, 1)), ((0.3, 0.5), (0.9, 0.5)))),
    (7, (((0.1, 0.15), (0.1, 0), (0.85, 0), (0.4, 1)), ((0.3, 0.5), (0.9, 0.5)))),
    # Open and closed.
    (4, (((0.2, 0), (0.1, 0.6), (0.85, 0.6)), ((0.7, 0.1), (0.65, 1)))),
    (4, (((0.65, 1), (0.65, 0), (0.05, 0.65), (0.9, 0.65)),)),
)

HEIGHT = 100
UNSTEADY = 0.06
"""How far a corner is from where it belongs: a standard deviation, of the digit's height."""

_BITS = 4


def drawn(count: int, rng: np.random.Generator) -> Examples:
    """That many digits, each style as often as any other, framed as serving frames them."""
    styles = [STYLES[index % len(STYLES)] for index in range(count)]
    images = [_draw(lines, rng) for _, lines in styles]
    return Examples(
        np.array(images, np.uint8).reshape(-1, 28, 28), np.array([label for label, _ in styles], np.uint8)
    )


def _draw(lines: tuple[Line, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    width, thickness = HEIGHT * rng.uniform(0.4, 1), int(HEIGHT * rng.uniform(0.06, 0.18))
    paper = np.zeros((2 * HEIGHT, 2 * HEIGHT), np.float32)
    for line in lines:
        corners = (np.array(line) + rng.normal(0, UNSTEADY, (len(line), 2))) * (width, HEIGHT) + HEIGHT / 2
        fixed = (corners * 2**_BITS).astype(np.int32)
        cv2.polylines(paper, [fixed], False, 1.0, thickness, cv2.LINE_AA, _BITS)
    rows, columns = np.flatnonzero(paper.any(axis=1)), np.flatnonzero(paper.any(axis=0))
    return frame(paper[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
