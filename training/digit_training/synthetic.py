"""Ways of writing each digit, as lines of a pen: common ones that MNIST, which is American, hardly knows."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images import fit_to_mnist_canvas
from digit_training.data import Examples

Line = tuple[tuple[float, float], ...]
"""The corners of a line, x and y of each, from 0, 0 at the top left to 1, 1."""

STYLES: tuple[tuple[int, str], ...] = (
    (0, "45,0 0,35 10,85 50,100 95,70 90,20 50,0"),
    (0, "70,10 30,0 0,40 20,95 70,100 100,50 75,5 40,10"),
    # A flag, short or long, alone or with a foot: without them a network takes the flag for the bar of a 7.
    (1, "25,25 50,0 50,100"),
    (1, "15,45 55,0 55,100"),
    (1, "0,45 95,0 50,100"),
    (1, "10,65 100,0 30,100"),
    (1, "25,25 50,0 50,100 / 20,100 80,100"),
    (1, "15,45 55,0 55,100 / 25,100 85,100"),
    (1, "20,30 60,0 45,100 0,100 100,95"),
    (1, "0,35 80,0 60,100"),
    (1, "5,45 70,0 60,40 40,100"),
    (1, "20,40 100,0 10,100"),
    (1, "5,25 70,0 50,95 10,100 100,100"),
    (1, "0,25 25,0 25,95 / 5,100 100,95"),
    (2, "5,20 45,0 75,25 5,100 100,95"),
    (2, "20,20 50,0 80,30 35,95 0,90 30,80 100,100"),
    (3, "0,0 95,0 45,40 100,65 70,100 0,95"),
    (3, "5,15 50,0 90,20 35,45 95,70 50,100 0,85"),
    # Open and closed; in one pull of the pen, with the stem to the right, or through the loop.
    (4, "20,0 10,60 85,60 / 70,10 65,100"),
    (4, "30,0 0,65 80,60 / 95,20 75,100"),
    (4, "65,100 65,0 5,65 90,65"),
    (4, "35,0 0,60 70,60 95,30 80,100"),
    (4, "50,0 0,65 100,45 65,100"),
    (4, "20,0 0,60 65,65 95,45 75,40 70,100"),
    (4, "60,0 0,75 100,75 / 70,45 60,100"),
    (4, "55,0 0,45 50,60 100,40 60,5 50,100"),
    # With the hat first, and last.
    (5, "100,0 30,5 20,40 75,50 75,90 0,100"),
    (5, "95,0 20,40 85,65 0,100"),
    (5, "15,5 10,45 60,45 80,75 45,100 0,90 / 15,5 100,0"),
    (5, "100,5 25,0 15,45 70,40 95,70 55,100 0,90"),
    (5, "30,5 20,45 85,50 80,90 10,100 / 30,10 100,5"),
    (6, "70,0 10,50 15,95 75,95 90,70 20,75"),
    (6, "85,5 40,15 5,70 40,100 95,85 70,55 10,70"),
    # Without a bar across, and with one, joined or not; with a serif.
    (7, "10,0 85,0 40,100"),
    (7, "0,15 30,0 90,5 30,100"),
    (7, "10,0 85,0 40,100 / 30,50 90,50"),
    (7, "10,15 10,0 85,0 40,100 / 30,50 90,50"),
    (7, "0,5 70,5 70,40 35,100 / 5,65 100,50"),
    (7, "0,5 65,0 70,45 40,100 15,85 30,60 100,60"),
    (7, "5,10 60,0 80,20 55,95 25,90 10,55 100,50"),
    (7, "10,10 75,5 80,30 40,100 10,75 100,60"),
    (7, "15,0 90,10 60,55 20,100 0,80 40,60 100,65"),
    (7, "0,20 25,0 75,10 75,40 45,100 / 5,60 95,60"),
    (7, "5,10 45,0 85,15 60,65 35,100 15,75 100,70"),
    (7, "20,5 85,0 50,100 20,95 0,65 60,50 100,45"),
    (7, "0,0 80,5 75,35 30,95 5,90 20,70 90,60"),
    (7, "10,5 70,0 65,40 60,100 20,80 95,75"),
    (7, "20,10 80,10 30,55 75,90 25,100 10,75 90,55"),
    (8, "90,10 40,0 20,25 85,75 50,100 10,80 90,15"),
    (8, "10,5 80,65 50,100 15,75 90,5 10,5"),
    (8, "80,10 25,5 15,30 85,70 75,100 15,100 10,75 80,35 85,10"),
    (8, "50,50 10,20 50,0 90,20 50,50 5,80 50,100 95,80 50,50"),
    (8, "100,5 20,0 20,35 90,60 60,100 10,90 30,50 80,10"),
    (8, "90,0 30,10 30,40 80,70 50,100 10,85 40,55 100,20"),
    (8, "10,20 80,60 90,90 10,95 15,65 90,25 50,0 10,20"),
    # In one pull: the loop, closed or not, then the stem, straight or with a tail to the left.
    (9, "95,10 40,0 10,30 50,45 90,10 85,100"),
    (9, "95,10 35,0 10,25 50,40 90,15 85,75 50,100 0,95"),
    (9, "85,5 45,5 40,35 90,20 90,80 45,100 0,90"),
    (9, "90,20 50,0 0,15 50,35 100,20 40,100"),
    (9, "90,10 50,0 5,20 30,45 80,30 95,5 90,60 60,95 0,90"),
    (9, "80,0 20,15 30,40 85,30 80,10 100,70 50,100 5,90"),
    (9, "90,0 35,5 20,35 75,35 85,5 90,50 50,100 0,100"),
    (9, "60,10 10,15 30,40 90,20 40,5 95,15 90,60 30,100"),
    (9, "95,10 50,5 40,25 80,30 100,10 60,60 10,100"),
    (9, "70,10 30,5 10,35 80,35 75,5 95,60 70,100 20,100"),
)
"""A digit, and its lines in the order of writing: the corners of each, x and y in percent."""


def lines(style: str) -> tuple[Line, ...]:
    """As `STYLES` has it, read."""
    return tuple(tuple(_corner(corner) for corner in line.split()) for line in style.split("/"))


def _corner(text: str) -> tuple[float, float]:
    x, y = text.split(",")
    return int(x) / 100, int(y) / 100


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
    return fit_to_mnist_canvas(paper[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


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
