"""Writing: rows and lines of MNIST's digits, redrawn with one pen, and sketches of strokes."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.handwriting.pen import Digit, Ink, enlarge, redraw, skeletonize, trim

Points = NDArray[np.float64]
"""A stroke as float64 [n, 2] of x and y, y downwards."""

# Shares of a digit's height: mean width of its strokes, and the width at the thickest place; the latter also
# as a multiple of the former. Bolder digits, and those with filled loops, have misleading skeletons.
_MAX_STROKE_WIDTH, _MAX_THICKNESS, _MAX_THICKENING = 0.17, 0.25, 2.1


@dataclass(frozen=True)
class Digits:
    """MNIST's digits and their labels: uint8 [n, 28, 28] and uint8 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def pick(self, label: int, rng: np.random.Generator) -> Digit:
        """Return a random digit of this label whose strokes a thinner pen can follow."""
        alike = np.flatnonzero(self.labels == label)
        while True:
            digit: Digit = self.images[rng.choice(alike)]
            if _is_redrawable(digit):
                return digit


@dataclass(frozen=True)
class Pen:
    """A hand: digits about `height` pixels high, the highest `spread` times the lowest, strokes `width` wide.

    `redraws` is False if the digits keep their own stroke widths; signs are `width` wide all the same.
    """

    height: float
    width: float
    spread: float = 1.15
    redraws: bool = True


def number(rng: np.random.Generator, least: int = 2, most: int = 6) -> str:
    """Return a random number of `least` to `most` digits."""
    return "".join(str(digit) for digit in rng.integers(0, 10, rng.integers(least, most + 1)))


def any_pen(rng: np.random.Generator, low: float = 28, high: float = 110, spread: float = 1.15) -> Pen:
    """Return a pen for digits `low` to `high` pixels high."""
    height = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return Pen(height, max(1.5, height * rng.uniform(0.06, 0.14)), spread, redraws=rng.random() < 0.6)


def write(text: str, digits: Digits, pen: Pen, rng: np.random.Generator) -> list[Ink]:
    """Write each digit of the text, at a random height."""
    inks = []
    for character in text:
        digit = digits.pick(int(character), rng)
        height = pen.height * pen.spread ** rng.uniform(-0.5, 0.5)
        inks.append(_redraw(digit, height, pen.width) if pen.redraws else enlarge(digit, round(height)))
    return [trim(ink, 0.2) for ink in inks]


def row(
    inks: Sequence[Ink], gaps: Sequence[float], *, rises: Sequence[float] = (), by_ink: bool = False
) -> Ink:
    """Put inks in a row, on a baseline, each `rises[i]` pixels above it, and `gaps[i]` after the i-th.

    A gap is the distance of the boxes, or of the strokes themselves where `by_ink`; a negative one overlaps.
    """
    rises = rises or [0.0] * len(inks)
    baseline = max(ink.shape[0] + round(rise) for ink, rise in zip(inks, rises, strict=True))
    height = baseline + max(0, -round(min(rises)))
    width = sum(ink.shape[1] for ink in inks) + sum(round(abs(gap)) for gap in gaps)
    sheet = np.zeros((height, width), np.float32)
    left = right = 0
    for ink, rise, gap in zip(inks, rises, [0.0, *gaps], strict=True):
        top = baseline - ink.shape[0] - round(rise)
        if right:
            nearest = right - (_slack(sheet[:, :right], ink, top) if by_ink else 0)
            # An ink starts right of the middle of the one before it: the order stays readable.
            left = max((left + right) // 2, nearest + round(gap))
        right = left + ink.shape[1]
        part = sheet[top : top + ink.shape[0], left:right]
        np.maximum(part, ink, out=part)
    return trim(sheet, 0.05)


def stack(rows: Sequence[Ink], gap: float, rng: np.random.Generator) -> Ink:
    """Put rows below each other, `gap` pixels apart, each indented a little."""
    indents = [int(rng.integers(0, 1 + ink.shape[0] // 2)) for ink in rows]
    width = max(indent + ink.shape[1] for indent, ink in zip(indents, rows, strict=True))
    parts = [
        np.pad(ink, ((0, round(gap)), (indent, width - indent - ink.shape[1])))
        for indent, ink in zip(indents, rows, strict=True)
    ]
    return trim(np.vstack(parts), 0.05)


def shear(ink: Ink, degrees: float) -> Ink:
    """Slant the ink to the right."""
    shift = np.tan(np.deg2rad(degrees))
    room = int(abs(shift) * ink.shape[0]) + 2
    matrix = np.array([[1, -shift, room if shift < 0 else shift * ink.shape[0]], [0, 1, 0]])
    size = (ink.shape[1] + 2 * room, ink.shape[0])
    return trim(np.asarray(cv2.warpAffine(ink, matrix, size), np.float32), 0.05)


def sketch(strokes: Sequence[Points], height: float, width: float, rng: np.random.Generator) -> Ink:
    """Draw strokes, given in any unit, by an unsteady hand: `height` pixels on their longer side."""
    points = np.vstack(strokes)
    low, scale = points.min(axis=0), height / max(float(np.ptp(points, axis=0).max()), 1e-6)
    lean = np.array([[1, rng.uniform(-0.15, 0.15)], [rng.uniform(-0.06, 0.06), rng.uniform(0.85, 1.15)]])
    drawn = [_unsteady((stroke - low) * scale, height, rng) @ lean.T for stroke in strokes]
    margin = width + 2
    origin = np.vstack(drawn).min(axis=0) - margin
    columns, rows = np.ceil(np.vstack(drawn).max(axis=0) - origin + margin).astype(int)
    ink = np.zeros((int(rows), int(columns)), np.uint8)
    for stroke in drawn:
        fixed = np.rint((stroke - origin) * 16).astype(np.int32)
        cv2.polylines(ink, [fixed], False, 255, max(1, round(width)), cv2.LINE_AA, 4)
    return trim(np.asarray(ink / 255, np.float32), 0.05)


def arc(x: float, y: float, radius: float, start: float = 0, end: float = 360, aspect: float = 1) -> Points:
    """Return an arc of a circle; `aspect` is its height over its width, angles in degrees."""
    angles = np.deg2rad(np.linspace(start, end, 25))
    return np.stack([x + radius * np.cos(angles), y + aspect * radius * np.sin(angles)], axis=1)


def line(*coordinates: float) -> Points:
    """Return a polyline through x0, y0, x1, y1, …"""
    return np.array(coordinates, np.float64).reshape(-1, 2)


def _is_redrawable(digit: Digit) -> bool:
    """True if the digit's strokes hang together and a thinner pen can follow them."""
    ink = enlarge(digit, 160)
    mask = np.pad((ink > 0.5).astype(np.uint8), 1)
    width = float(mask.sum() / max(1, int(skeletonize(np.pad(ink, 1)).sum())))
    if width > 160 * _MAX_STROKE_WIDTH or cv2.connectedComponents(mask)[0] != 2:
        return False
    thickest = 2 * float(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max())
    return thickest < min(160 * _MAX_THICKNESS, _MAX_THICKENING * width)


def _redraw(digit: Digit, height: float, width: float) -> Ink:
    """Redraw the digit with a pen `width` pixels wide; round the knobs of the skeleton's spurs off."""
    ink = redraw(digit, round(height - width), width)
    blurred = cv2.GaussianBlur(ink, (0, 0), 0.3 * width)
    return np.asarray(np.clip((blurred - 0.5) * max(1.0, 0.6 * width) + 0.5, 0, 1), np.float32)


def _slack(before: Ink, ink: Ink, top: int) -> int:
    """Return by how many pixels the ink, put after the box of `before`, may move left until it touches."""
    mask = before > 0.3
    ends = np.where(mask.any(axis=1), mask.shape[1] - mask[:, ::-1].argmax(axis=1), -10_000)
    beside = ink > 0.3
    starts = np.where(beside.any(axis=1), beside.argmax(axis=1), 10_000)
    # Strokes of neighbouring rows count, too: ink is near in all directions.
    near = np.array(
        [ends[max(0, top + index - 2) : top + index + 3].max(initial=-10_000) for index in range(len(starts))]
    )
    return int(before.shape[1] - (near - starts).max())


def _unsteady(stroke: Points, height: float, rng: np.random.Generator) -> Points:
    """Divide a stroke into short parts and shift them by smooth noise."""
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(stroke, axis=0).T))])
    count = max(3, int(lengths[-1] / max(2.0, height / 30)))
    at = np.linspace(0, lengths[-1], count)
    fine = np.stack([np.interp(at, lengths, stroke[:, axis]) for axis in (0, 1)], axis=1)
    knots = rng.normal(0, 0.012 * height, (max(2, count // 6) + 1, 2))
    where = np.linspace(0, len(knots) - 1, count)
    return fine + np.stack(
        [np.interp(where, np.arange(len(knots)), knots[:, axis]) for axis in (0, 1)], axis=1
    )
