"""Glyphs: digits of many hands, pens and fonts, and signs, from which pages are written.

Each glyph is a soft mask, uint8 [h, w], as high as `HEIGHT`, cropped to its ink.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.reading.peaks import SIGN
from digit_training.data import Examples
from digit_training.drawing.negatives import Sketcher
from digit_training.drawing.strokes import LETTERS
from digit_training.drawing.synthetic import (
    BARS,
    PEN,
    PRINT,
    STYLES,
    draw_polyline,
    draw_strokes,
    draw_text,
    parse_strokes,
)

T = TypeVar("T")

Ink = NDArray[np.float32]
_Area = tuple[slice, slice]
"""Soft mask, float32 [h, w] in 0..1."""
Glyph = NDArray[np.uint8]
"""Soft mask, uint8 [h, w]."""

HEIGHT = 64
"""Height of a glyph in pixels."""
SOURCES = ("mnist", "redrawn", "strokes", "print")
"""Origins of glyphs: MNIST's digits as they are, and along their skeletons with another pen; drawn styles of
other countries; fonts."""
SKETCHES = {
    "letter": 7,
    "printed_letter": 3,
    "otherwise_printed_letter": 2,
    "foreign_letter": 2,
    "invented_letter": 3,
    "symbol": 6,
    "shape": 2,
    "doodle": 4,
    "scribble": 4,
    "figure": 5,
    "frame": 2,
    "grid": 1,
    "blob": 2,
    "spiral": 1,
    "specks": 1,
    "punctuation": 2,
}
"""Frequencies of the kinds of drawings that show no digit, by their methods of Sketcher."""
ALPHABET = "etaoinsrhldcumfpgwybvkxjqz"
_LETTER_SHARES = 1 / np.arange(6, 6 + len(ALPHABET))
_LETTER_SHARES /= _LETTER_SHARES.sum()
DIGIT_LIKE_LETTERS = (
    "0,0 0,100 / 0,0 70,10 70,40 0,50 / 0,50 85,60 85,90 0,100",
    "50,0 50,100",
    "50,0 0,50 50,100 100,50 50,0",
    "90,15 50,0 10,25 90,75 50,100 5,85",
    "0,0 100,0 0,100 100,100",
    "0,0 0,100 / 0,55 60,40 90,70 60,100 0,90",
    "90,25 50,15 10,40 50,60 90,35 / 90,20 85,90 45,105 10,95",
    "50,30 50,100 / 50,5 52,7",
    "40,0 45,100",
    "50,20 10,60 50,100 90,60 50,20",
    "85,25 45,10 10,40 45,65 85,45 / 88,15 88,110",
    "85,35 50,20 20,45 80,75 50,100 15,85",
    "10,20 85,20 10,100 90,100",
)
"""Letters that equal digits where they stand alone, in the format of `synthetic.STYLES`: BIOSZ bgiloqsz."""
_SKELETON_HEIGHT = 96
_THINNING = (
    np.array([[-1, -1, -1], [0, 1, 0], [1, 1, 1]], np.int8),
    np.array([[0, -1, -1], [1, 1, -1], [0, 1, 0]], np.int8),
)
"""Elements of homotopic thinning, each used in four rotations: Serra, Image Analysis, 1982."""


class GlyphBank:
    """Glyphs by origin and label, words and sketches, drawn once: pages take from it."""

    def __init__(self, digits: Examples, count: int, rng: np.random.Generator) -> None:
        """Draw `count` glyphs for each origin; `digits` are MNIST's training digits."""
        self._glyphs: dict[str, list[list[Glyph]]] = {source: [[] for _ in range(SIGN)] for source in SOURCES}
        chosen = rng.choice(len(digits), min(count, len(digits)), replace=False)
        for index in chosen.tolist():
            image, label = digits.images[index], int(digits.labels[index])
            self._glyphs["mnist"][label].append(enlarge(image, rng))
            self._glyphs["redrawn"][label].append(redraw(image, rng))
        styles = [(label, parse_strokes(style)) for label, style in STYLES]
        for number in range(max(count, len(styles))):
            label, strokes = styles[number % len(styles)]
            self._glyphs["strokes"][label].append(_to_glyph(draw_strokes(strokes, rng, PEN)))
        self._bars = [
            _to_glyph(draw_strokes(parse_strokes(pick(BARS, rng)), rng, PEN)) for _ in range(count // 8)
        ]
        for number in range(count // 2):
            label = number % SIGN
            self._glyphs["print"][label].append(_to_glyph(draw_text(str(label), PRINT.fonts, rng)))
        sketcher = Sketcher(rng, digits)
        weights = np.array(list(SKETCHES.values()), float)
        kinds = rng.choice(len(SKETCHES), count, p=weights / weights.sum())
        self._words = [_to_bytes(draw_word(rng)) for _ in range(count // 2)]
        self._sketches = [_to_bytes(getattr(sketcher, list(SKETCHES)[kind])()) for kind in kinds.tolist()]

    def take(self, source: str, label: int, rng: np.random.Generator) -> Glyph:
        """Return a random glyph of the label, 0 to 9; a drawn style if the source has none."""
        return pick(self._glyphs[source][label] or self._glyphs["strokes"][label], rng)

    def bar(self, rng: np.random.Generator) -> Glyph:
        """Return a random plain 1."""
        return pick(self._bars, rng)

    def word(self, rng: np.random.Generator) -> Glyph:
        """Return a random word of any height."""
        return pick(self._words, rng)

    def sketch(self, rng: np.random.Generator) -> Glyph:
        """Return a random drawing that is no digit, of any height."""
        return pick(self._sketches, rng)


def enlarge(image: NDArray[np.uint8], rng: np.random.Generator) -> Glyph:
    """Enlarge a digit, uint8 [28, 28], to a glyph with edges of a random sharpness."""
    large = _enlarge(image, HEIGHT)
    gain = rng.uniform(1, 2.5)
    return _to_glyph(np.clip((large - 0.5) * gain + 0.5, 0, 1))


def redraw(image: NDArray[np.uint8], rng: np.random.Generator) -> Glyph:
    """Draw a digit, uint8 [28, 28], along its skeleton with a pen of a random width."""
    large = np.pad(_enlarge(image, _SKELETON_HEIGHT), 12)
    skeleton = skeletonize(large > 0.5)
    distance = cv2.distanceTransform(1 - skeleton, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = cv2.GaussianBlur(distance, (0, 0), 1.5)
    width = _SKELETON_HEIGHT * np.exp(rng.uniform(np.log(0.025), np.log(0.17)))
    return _to_glyph(np.clip(width / 2 + 1.5 - distance, 0, 1))


def skeletonize(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the skeleton of a mask, bool [h, w], one pixel wide: uint8 [h, w] of 0 and 1."""
    skeleton = mask.astype(np.uint8)
    elements = [np.rot90(element, quarter) for element in _THINNING for quarter in range(4)]
    while True:
        before = cv2.countNonZero(skeleton)
        for element in elements:
            skeleton -= cv2.morphologyEx(skeleton, cv2.MORPH_HITMISS, element)
        if cv2.countNonZero(skeleton) == before:
            return skeleton


def draw_word(rng: np.random.Generator) -> Ink:
    """Print or write a word of random letters. A letter that resembles a digit is no digit within a word."""
    count = int(rng.integers(2, 9))
    if rng.random() < 0.5:
        letters = rng.choice(list(ALPHABET), count, p=_LETTER_SHARES)
        text = "".join(letters.tolist())
        text = (text.upper, text.lower, text.capitalize)[int(rng.choice(3, p=(0.2, 0.4, 0.4)))]()
        return draw_text(text, (*PRINT.fonts, "STIXGeneral", "STIXGeneralItalic"), rng)
    pen = replace(PEN, height=48, width_range=(0.4, 0.9), joined_fraction=0.05, corner_std=0.05)
    pen = replace(pen, thickness_range=(0.05, 0.14), sparse_fraction=0.2)
    strokes = [parse_strokes(pick((*LETTERS, *DIGIT_LIKE_LETTERS), rng)) for _ in range(count)]
    parts = [
        transform(draw_strokes(stroke, rng, pen), 48 * rng.uniform(0.6, 1.1), 1, 0, 0) for stroke in strokes
    ]
    gap = rng.uniform(-2, 8)
    canvas = np.zeros((96, sum(part.shape[1] for part in parts) + 10 * count), np.float32)
    left = 0.0
    for part in parts:
        height, width = part.shape
        top = min(96 - height, max(0, int(64 - height + rng.normal(0, 3))))
        x = max(0, round(left))
        area = canvas[top : top + height, x : x + width]
        np.maximum(area, part[:, : area.shape[1]], out=area)
        left += width + max(gap, -width / 4)
    return _crop(canvas)


def draw_sign(name: str, height: float, thickness: float, rng: np.random.Generator) -> tuple[Ink, float]:
    """Draw a sign beside digits of a height in pixels.

    Return its ink, cropped, and the distance of its top from the digits' top, as a share of their height.
    """
    side = int(2 * height) + 8
    canvas = np.zeros((side, side), np.float32)
    pen = max(1, round(thickness))
    middle = side / 2
    if name == "/":
        length, lean = height * rng.uniform(0.95, 1.5), height * rng.uniform(0.22, 0.65)
        draw_polyline(canvas, np.array([(middle + lean / 2, 4), (middle - lean / 2, 4 + length)]), pen)
        return _crop(canvas), (height - length) / 2 / height + rng.uniform(-0.08, 0.12)
    if name == "-":
        length, tilt = height * rng.uniform(0.25, 0.6), height * rng.normal(0, 0.04)
        ends = (middle - length / 2, middle), (middle + length / 2, middle + tilt)
        draw_polyline(canvas, np.array(ends), pen)
        return _crop(canvas), rng.uniform(0.4, 0.6)
    if name == ".":
        cv2.circle(canvas, (int(middle),) * 2, max(1, round(thickness * rng.uniform(0.6, 1.0))), 1.0, -1)
        return _crop(canvas), rng.uniform(0.88, 1.0)
    if name == ",":
        length = height * rng.uniform(0.15, 0.3)
        tail = middle - length * rng.uniform(0.2, 0.6), middle + length
        draw_polyline(canvas, np.array([(middle, middle), tail]), pen)
        return _crop(canvas), rng.uniform(0.85, 1.0)
    if name == ":":
        gap, radius = height * rng.uniform(0.3, 0.5), max(1, round(0.7 * thickness))
        for y in (middle - gap / 2, middle + gap / 2):
            cv2.circle(canvas, (int(middle), int(y)), radius, 1.0, -1)
        return _crop(canvas), rng.uniform(0.2, 0.4)
    ink = draw_text(name, ("DejaVuSans", "DejaVuSerif"), rng)
    scale = height * rng.uniform(0.9, 1.25) / ink.shape[0]
    return _scaled(ink, scale, scale), rng.uniform(-0.15, 0.05)


def transform(
    glyph: NDArray[np.uint8] | Ink, height: float, stretch: float, slant: float, angle: float
) -> Ink:
    """Scale a glyph to a height in pixels, and stretch, shear and rotate it: float32, cropped.

    `stretch` is the factor of the width, `slant` pixels to the right per pixel upwards, `angle` radians.
    """
    ink = glyph.astype(np.float32)
    if glyph.dtype == np.uint8:
        ink /= 255
    scale = height / ink.shape[0]
    ink = _scaled(ink, scale * stretch, scale)
    rows, columns = ink.shape
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, -slant], [0, 1]])
    corners = matrix @ np.array([[0, columns, 0, columns], [0, 0, rows, rows]])
    low, high = corners.min(axis=1), corners.max(axis=1)
    size = np.ceil(high - low).astype(int) + 2
    affine = np.concatenate((matrix, (1 - low)[:, None]), axis=1)
    return _crop(np.asarray(cv2.warpAffine(ink, affine, size.tolist(), flags=cv2.INTER_LINEAR)))


def paste(ink: Ink, canvas: Ink, left: float, top: float) -> tuple[_Area, _Area] | None:
    """Put ink on a canvas, which may lie outside in part; where both have ink, the stronger stays.

    Return the area of the canvas that it takes, and the part of the ink that is there; None outside of it.
    """
    x, y = round(left), round(top)
    rows, columns = canvas.shape
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + ink.shape[1], columns), min(y + ink.shape[0], rows)
    if x1 <= x0 or y1 <= y0:
        return None
    area, part = np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
    np.maximum(canvas[area], ink[part], out=canvas[area])
    return area, part


def thicken(ink: Ink, change: float) -> Ink:
    """Change the width of strokes by about `change` pixels, up or down, by blending with a morphology."""
    steps = int(abs(change)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (steps + 1, steps + 1))
    padded = np.pad(ink, steps)
    changed = cv2.dilate(padded, kernel) if change > 0 else cv2.erode(padded, kernel)
    weight = abs(change) / steps
    return _crop(np.asarray(padded * (1 - weight) + changed * weight, np.float32))


def pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    """Return a random one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def _enlarge(image: NDArray[np.uint8], height: int) -> Ink:
    """Crop a digit to its ink and enlarge it smoothly to a height in pixels."""
    ink = np.pad(_crop(np.where(image > 40, image, 0).astype(np.float32) / np.float32(255)), 1)
    scale = height / ink.shape[0]
    large = cv2.resize(ink, (0, 0), fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(cv2.GaussianBlur(large, (0, 0), 0.35 * scale), 0, 1), np.float32)


def _to_glyph(ink: NDArray[np.floating]) -> Glyph:
    cropped = _crop(np.asarray(np.where(ink > 0.04, ink, 0), np.float32))
    scale = HEIGHT / cropped.shape[0]
    # A 1 is narrow, and a lying stroke would be wide.
    return np.asarray(255 * _scaled(cropped, min(scale, 2 * HEIGHT / cropped.shape[1]), scale), np.uint8)


def _to_bytes(ink: Ink) -> Glyph:
    return np.asarray(255 * np.clip(_crop(ink), 0, 1), np.uint8)


def _scaled(ink: Ink, across: float, down: float) -> Ink:
    size = max(1, round(ink.shape[1] * across)), max(1, round(ink.shape[0] * down))
    interpolation = cv2.INTER_AREA if min(across, down) < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(ink, size, interpolation=interpolation), np.float32)


def _crop(ink: Ink) -> Ink:
    left, top, width, height = cv2.boundingRect((ink > 0.04).astype(np.uint8))
    return ink[top : top + max(height, 1), left : left + max(width, 1)]
