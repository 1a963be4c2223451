"""Synthetic training data: digits that are rare in MNIST, drawn with a virtual pen or printed in fonts.

MNIST's writers are American; the styles of the pen are common in other countries.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from digit_core.images import fit_to_mnist_canvas
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


@dataclass(frozen=True)
class PrintConfig:
    """Variation of printed text."""

    fonts: tuple[str, ...] = (
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSans-Oblique",
        "DejaVuSansMono",
        "DejaVuSerif",
        "DejaVuSerif-Bold",
        "DejaVuSerif-Italic",
        "cmb10",
        "cmr10",
        "cmss10",
        "cmtt10",
    )
    """Names of fonts that Matplotlib brings."""
    size: int = 48
    """Size of the font in pixels."""
    weight_changes: tuple[int, int] = (-1, 3)
    """Bounds of the change of the stroke width in pixels."""
    slant_std: float = 0.12
    """Standard deviation of the slant in pixels to the side per pixel upwards."""
    stretch_range: tuple[float, float] = (0.7, 1.3)
    """Bounds of the factor of the width."""


PEN = PenConfig()
PRINT = PrintConfig()
PRINTED_FRACTION = 0.1
"""Share of printed digits among synthetic ones."""

BARS = ("50,0 50,100", "53,0 47,100", "60,0 40,100", "70,0 30,100", "45,0 55,100")
"""Plain 1s, upright and slanted, the most common ones in writing by hand, in the format of `STYLES`."""
STYLES: tuple[tuple[int, str], ...] = (
    (0, "45,0 0,35 10,85 50,100 95,70 90,20 50,0"),
    (0, "70,10 30,0 0,40 20,95 70,100 100,50 75,5 40,10"),
    # Open at the top; slashed.
    (0, "40,0 5,40 15,90 60,100 95,60 80,15"),
    (0, "55,0 10,20 5,75 45,100 90,75 95,25 55,0 / 90,5 10,95"),
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
    (1, "0,40 45,0 45,100"),
    (1, "30,20 55,0 55,100 / 5,100 100,100"),
    *((1, bar) for bar in BARS),
    (2, "5,20 45,0 75,25 5,100 100,95"),
    (2, "20,20 50,0 80,30 35,95 0,90 30,80 100,100"),
    # Looped.
    (2, "10,20 45,0 85,25 60,60 20,95 5,85 30,72 65,95 100,90"),
    (2, "15,25 40,0 80,10 75,50 25,100 0,85 25,70 50,90 100,95"),
    # Cursive: curled into its top, which looks like a 9's; two strokes, so that a tablet reports both loops.
    (2, "40,35 10,25 40,0 85,15 75,45 / 75,45 25,100 5,88 35,78 100,95"),
    (2, "50,35 20,30 25,5 75,0 80,40 / 80,40 20,95 10,80 45,85 100,92"),
    (2, "45,35 15,30 25,0 70,0 85,30 / 85,30 5,100 100,95"),
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
    # Curled at the top; curled into its loop.
    (6, "85,20 60,0 20,40 5,80 35,100 80,85 60,55 15,75"),
    (6, "80,0 30,20 0,70 30,100 80,90 85,60 45,55 25,75 55,80"),
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
    # Looped at its foot, which looks like an 8; two strokes, so that a tablet reports both loops.
    (9, "95,10 45,0 5,25 45,50 95,10 / 95,10 85,75 45,100 20,88 55,72 100,88"),
    (9, "95,10 50,0 10,20 35,45 90,15 / 90,15 75,85 40,100 25,88 90,62"),
    (9, "80,0 20,5 10,40 75,40 85,5 / 85,5 85,80 40,100 15,85 45,70 100,80"),
    # Open: the loop does not reach the stem.
    (9, "80,20 45,0 10,25 35,50 80,35 / 90,5 80,100"),
)
"""Pairs of a digit and its strokes in writing order, separated by `/`; each corner is `x,y` in percent."""

_SUBPIXEL_BITS = 4
_CURVE_POINTS = 10
"""Points of a smooth curve between two corners."""


def make_digits(count: int, rng: np.random.Generator) -> Examples:
    """Return `count` synthetic digits, normalised as in serving: a tenth printed, the rest drawn."""
    printed = round(PRINTED_FRACTION * count)
    return draw_digits(count - printed, rng) + print_digits(printed, rng)


def print_digits(count: int, rng: np.random.Generator) -> Examples:
    """Return `count` digits in fonts, equally distributed over 0 to 9 and normalised as in serving."""
    labels = np.arange(count, dtype=np.uint8) % 10
    images = [fit_to_mnist_canvas(draw_text(str(label), PRINT.fonts, rng)) for label in labels]
    return Examples(np.array(images, np.uint8).reshape(-1, 28, 28), labels)


def draw_digits(count: int, rng: np.random.Generator) -> Examples:
    """Return `count` digits, equally distributed over the styles and normalised as in serving."""
    styles = [(label, parse_strokes(style)) for label, style in STYLES]
    chosen = [styles[index % len(styles)] for index in range(count)]
    images = [fit_to_mnist_canvas(draw_strokes(strokes, rng)) for _, strokes in chosen]
    return Examples(
        np.array(images, np.uint8).reshape(-1, 28, 28), np.array([label for label, _ in chosen], np.uint8)
    )


def parse_strokes(style: str) -> tuple[Stroke, ...]:
    """Return the strokes that a string in the format of STYLES describes."""
    return tuple(tuple(_parse_corner(corner) for corner in stroke.split()) for stroke in style.split("/"))


def _parse_corner(text: str) -> tuple[float, float]:
    x, y = text.split(",")
    return int(x) / 100, int(y) / 100


def draw_strokes(
    strokes: tuple[Stroke, ...], rng: np.random.Generator, pen: PenConfig = PEN
) -> NDArray[np.float32]:
    """Draw strokes with a random pen: a soft mask, float32 [h, w] in 0..1, cropped to the ink."""
    if rng.random() < pen.joined_fraction:
        strokes = (sum(strokes, ()),)
    is_smooth = rng.random() < pen.smooth_fraction
    fewest, most = pen.sparse_points
    points = int(rng.integers(fewest, most + 1)) if rng.random() < pen.sparse_fraction else None
    width = pen.height * rng.uniform(*pen.width_range)
    thickness = int(pen.height * rng.uniform(*pen.thickness_range))
    canvas = np.zeros((2 * pen.height, 2 * pen.height), np.float32)
    for stroke in strokes:
        noise = rng.normal(0, pen.corner_std, (len(stroke), 2))
        corners = (np.array(stroke) + noise) * (width, pen.height) + pen.height / 2
        curve = smooth(corners) if is_smooth else corners
        reported = _resample(curve, points) if points else curve
        draw_polyline(canvas, reported, thickness)
    return crop(canvas)


def draw_text(text: str, fonts: Sequence[str], rng: np.random.Generator) -> NDArray[np.float32]:
    """Print text in one of the fonts, with a random weight, slant and width.

    Return a soft mask as `draw_strokes` does.
    """
    font = _load_font(fonts[int(rng.integers(len(fonts)))])
    left, top, right, bottom = map(int, font.getbbox(text))
    picture = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(picture).text((4 - left, 4 - top), text, fill=255, font=font)
    ink = np.asarray(picture, np.float32) / np.float32(255)
    fewest, most = PRINT.weight_changes
    change = int(rng.integers(fewest, most + 1))
    change_weight = cv2.erode if change < 0 else cv2.dilate
    ink = crop(change_weight(ink, np.ones((abs(change) + 1, abs(change) + 1), np.uint8)))
    height, width = ink.shape
    slant, stretch = rng.normal(0, PRINT.slant_std), rng.uniform(*PRINT.stretch_range)
    shear = np.array([[stretch, -slant, max(slant * height, 0)], [0, 1, 0]])
    size = (math.ceil(stretch * width + abs(slant) * height), height)
    return crop(np.asarray(cv2.warpAffine(ink, shear, size), np.float32))


@functools.cache
def _load_font(name: str) -> ImageFont.FreeTypeFont:
    """Load a font that Matplotlib brings."""
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", PRINT.size)


def draw_polyline(canvas: NDArray[np.float32], corners: NDArray[np.float64], thickness: int) -> None:
    """Draw an antialiased polyline of corners (x, y), in pixels, into a soft mask: float32 [h, w] in 0..1."""
    fixed_point = (corners * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.polylines(canvas, [fixed_point], False, 1.0, max(1, thickness), cv2.LINE_AA, _SUBPIXEL_BITS)


def crop(canvas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the part of the canvas, float32 [h, w], that holds its ink; a single pixel if there is none."""
    left, top, width, height = cv2.boundingRect((canvas > 0).astype(np.uint8))
    return canvas[top : top + max(height, 1), left : left + max(width, 1)]


def smooth(corners: NDArray[np.float64]) -> NDArray[np.float64]:
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
