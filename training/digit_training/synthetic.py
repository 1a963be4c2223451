"""Synthetic training data: digits drawn with a virtual pen in handwriting styles that are rare in MNIST.

MNIST's writers are American; the styles are common in other countries.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client.images import fit_to_mnist_canvas
from digit_training.data import Examples

Stroke = tuple[tuple[float, float], ...]
"""Corners (x, y) of a polyline, from (0, 0) at the top left to (1, 1)."""


@dataclass(frozen=True)
class PenConfig:
    """Variation of the virtual pen.

    A `_fraction` is the share of digits with a property, 0..1. A `_range` bounds a uniform distribution.
    """

    height: int = 100
    """Height of a digit in pixels, before it is normalised to 20."""
    width_range: tuple[float, float] = (0.4, 1.1)
    """Width of a digit as a fraction of its height."""
    thickness_range: tuple[float, float] = (0.05, 0.18)
    """Stroke width as a fraction of the height."""
    corner_std: float = 0.08
    """Unsteady hand: standard deviation of a corner's position as a fraction of width and height."""
    joined_fraction: float = 0.4
    """Digits drawn without lifting the pen, so that the strokes are connected."""
    smooth_fraction: float = 0.7
    """Digits with rounded corners."""
    sparse_fraction: float = 0.6
    """Digits drawn on a tablet that reports few points per stroke, connected by straight lines."""
    sparse_points: tuple[int, int] = (7, 12)
    """Fewest and most points per stroke on such a tablet."""


PEN = PenConfig()

STYLES: tuple[tuple[int, str], ...] = (
    (0, "45,0 0,35 10,85 50,100 95,70 90,20 50,0"),
    (0, "70,10 30,0 0,40 20,95 70,100 100,50 75,5 40,10"),
    # Short or long flag, with and without a foot. An untrained network takes the flag for the bar of a 7.
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
    # Open and closed; in one stroke; stem to the right or through the loop.
    (4, "20,0 10,60 85,60 / 70,10 65,100"),
    (4, "30,0 0,65 80,60 / 95,20 75,100"),
    (4, "65,100 65,0 5,65 90,65"),
    (4, "35,0 0,60 70,60 95,30 80,100"),
    (4, "50,0 0,65 100,45 65,100"),
    (4, "20,0 0,60 65,65 95,45 75,40 70,100"),
    (4, "60,0 0,75 100,75 / 70,45 60,100"),
    (4, "55,0 0,45 50,60 100,40 60,5 50,100"),
    # Top bar drawn first, and last.
    (5, "100,0 30,5 20,40 75,50 75,90 0,100"),
    (5, "95,0 20,40 85,65 0,100"),
    (5, "15,5 10,45 60,45 80,75 45,100 0,90 / 15,5 100,0"),
    (5, "100,5 25,0 15,45 70,40 95,70 55,100 0,90"),
    (5, "30,5 20,45 85,50 80,90 10,100 / 30,10 100,5"),
    (6, "70,0 10,50 15,95 75,95 90,70 20,75"),
    (6, "85,5 40,15 5,70 40,100 95,85 70,55 10,70"),
    # With and without a crossbar, joined or separate; with a serif.
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
    # One stroke: an open or closed loop, then a stem, straight or with a tail to the left.
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
"""Pairs of a digit and its strokes in writing order, separated by `/`; each corner is `x,y` in percent."""

_SUBPIXEL_BITS = 4
_CURVE_POINTS = 10
"""Points of a smooth curve between two corners."""


def draw_digits(count: int, rng: np.random.Generator) -> Examples:
    """Return `count` digits, equally distributed over the styles and normalised as in serving."""
    styles = [(label, parse_strokes(style)) for label, style in STYLES]
    chosen = [styles[index % len(styles)] for index in range(count)]
    images = [_draw(strokes, rng) for _, strokes in chosen]
    return Examples(
        np.array(images, np.uint8).reshape(-1, 28, 28), np.array([label for label, _ in chosen], np.uint8)
    )


def parse_strokes(style: str) -> tuple[Stroke, ...]:
    """Return the strokes that a string in the format of STYLES describes."""
    return tuple(tuple(_parse_corner(corner) for corner in stroke.split()) for stroke in style.split("/"))


def _parse_corner(text: str) -> tuple[float, float]:
    x, y = text.split(",")
    return int(x) / 100, int(y) / 100


def _draw(strokes: tuple[Stroke, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    if rng.random() < PEN.joined_fraction:
        strokes = (sum(strokes, ()),)
    is_smooth = rng.random() < PEN.smooth_fraction
    fewest, most = PEN.sparse_points
    points = int(rng.integers(fewest, most + 1)) if rng.random() < PEN.sparse_fraction else None
    width = PEN.height * rng.uniform(*PEN.width_range)
    thickness = int(PEN.height * rng.uniform(*PEN.thickness_range))
    canvas = np.zeros((2 * PEN.height, 2 * PEN.height), np.float32)
    for stroke in strokes:
        noise = rng.normal(0, PEN.corner_std, (len(stroke), 2))
        corners = (np.array(stroke) + noise) * (width, PEN.height) + PEN.height / 2
        curve = _smooth(corners) if is_smooth else corners
        reported = _resample(curve, points) if points else curve
        fixed_point = (reported * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.polylines(canvas, [fixed_point], False, 1.0, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    rows, columns = np.flatnonzero(canvas.any(axis=1)), np.flatnonzero(canvas.any(axis=0))
    return fit_to_mnist_canvas(canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _smooth(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a spline through the corners (Catmull and Rom, 1974): [points, 2]."""
    outer = 2 * corners[[0, -1]] - corners[[1, -2]]
    controls = np.concatenate((outer[:1], corners, outer[1:]))
    before, start, end, after = (controls[i : len(controls) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, _CURVE_POINTS)[None, :, None]
    curve = (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    ) / 2
    return np.asarray(curve.reshape(-1, 2), np.float64)


def _resample(curve: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Return `points` points at equal distances along the curve: [points, 2]."""
    distances = np.append(0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1)))
    stops = np.linspace(0, distances[-1], points)
    return np.stack([np.interp(stops, distances, axis) for axis in curve.T], axis=1)
