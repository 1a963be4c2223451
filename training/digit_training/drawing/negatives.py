"""Synthetic negatives: images without a digit, or with more than one, from which `is_digit` is learned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.images import fit_to_mnist_canvas
from digit_training.data import NO_DIGIT, Examples
from digit_training.drawing.strokes import DOODLES, FOREIGN_LETTERS, LETTERS, SHAPES, SYMBOLS
from digit_training.drawing.synthetic import (
    PEN,
    PRINT,
    PenConfig,
    crop,
    draw_polyline,
    draw_strokes,
    draw_text,
    parse_strokes,
    smooth,
)

Ink = NDArray[np.float32]
"""Soft mask, float32 [h, w] in 0..1."""

CANVAS = 80
"""Width and height of most drawings in pixels, before they are normalised."""

ASCII_LETTERS = "ACDEFGHJKLMNPQRTUVWXYacdefhjkmnprtuvwxy"
"""Letters that equal no digit; fonts distinguish D, G and Q from digits."""
FOREIGN_PRINT_LETTERS = "ΓΔΘΛΞΠΣΦΨΩαγθλμπτφψωБГДЖИЛФЦШЫЭЮЯгджклфцшюяאבגדהחלמפצשתسعقم"
PRINT_SYMBOLS = "#$%&*+=?@<>{}[]()!€£¥§©®±×÷≈≠∑√→←↑↓⇒↔★☆♥♦♣♠☺☹☼♪♫✓✗✚✂☎☂☁☀♀♂⚓⚡✈✉✏❄❤➔■▲●◆"
SYMBOL_FONTS = ("DejaVuSans", "DejaVuSans-Bold")
OTHER_FONTS = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmmi10", "cmti10")
"""Fonts of no training digit or letter."""

LETTER_PEN = replace(PEN, height=60, joined_fraction=0.03, corner_std=0.05)
WORD_PEN = replace(LETTER_PEN, height=32, width_range=(0.4, 0.9))
FIGURE_PEN = replace(
    PEN, height=60, width_range=(0.6, 1.3), joined_fraction=0, corner_std=0.04, sparse_fraction=0
)
"""Pen for figures of many corners, of which a tablet with few points would leave a ring."""

HALVES = {
    0: ("top", "bottom", "left", "right"),
    2: ("bottom",),
    4: ("left", "top"),
    5: ("top", "left"),
}
"""Halves, by digit, that resemble no digit. Half an 8 resembles a 0 or 3, half a 6 or 9 a 0, half a 7 a 1."""

QUARTER_TURNS = {3: (1, 3), 4: (1, 3), 7: (2,)}
"""Turns, by digit, in quarters counterclockwise, after which the digit resembles none."""

FRAMES = (
    "0,0 100,0 100,100 0,100 0,0",
    "0,0 0,100 100,100 100,0",
    "0,100 0,0 100,0 100,100",
    "100,0 0,0 0,100 100,100",
    "0,0 0,100 100,100",
    "0,100 0,0 100,0",
    "100,0 100,100 0,100",
    "0,0 100,0 / 50,0 50,100",
    "0,100 100,100 / 50,0 50,100",
    "0,0 0,100 / 0,50 100,50",
    "0,0 0,100 / 100,0 100,100 / 0,50 100,50",
    "0,50 100,50 / 50,0 50,100",
    "0,0 100,0 100,100 0,100 0,0 / 50,0 50,100",
    "0,0 100,0 100,100 0,100 0,0 / 0,50 100,50",
    "0,0 0,100 / 100,0 100,100",
    "0,0 100,0 / 0,100 100,100",
    "0,50 100,50",
)
"""Boxes, their sides, crossings and ruled lines, in the format of `synthetic.STYLES`.

The upper right corner of a box is left out, since it reads as 7, and a lone vertical line, which reads as 1.
"""

_BOX_CORNERS = 5
"""Corners of a closed box, the first of which is the last."""

MAX_ATTEMPTS = 50
"""Attempts to find a suitable digit; the user's own digits may lack some of the ten."""


class Sketcher:
    """Draws pictures of each kind; `digits` are MNIST's, from which some kinds take parts."""

    def __init__(self, rng: np.random.Generator, digits: Examples) -> None:
        self.rng = rng
        self.digits = digits

    def letter(self) -> Ink:
        """Draw a Latin letter with a pen."""
        return self._draw_style(LETTERS)

    def foreign_letter(self) -> Ink:
        """Draw or print a letter of another script."""
        if self.rng.random() < 0.5:
            return draw_text(self._pick(FOREIGN_PRINT_LETTERS), SYMBOL_FONTS, self.rng)
        return self._draw_style(FOREIGN_LETTERS)

    def printed_letter(self) -> Ink:
        """Print a letter."""
        return draw_text(self._pick(ASCII_LETTERS), PRINT.fonts, self.rng)

    def otherwise_printed_letter(self) -> Ink:
        """Print a letter in a font of no training letter."""
        return draw_text(self._pick(ASCII_LETTERS), OTHER_FONTS, self.rng)

    def word(self) -> Ink:
        """Draw or print two to six letters."""
        count = int(self.rng.integers(2, 7))
        if self.rng.random() < 0.4:
            text = "".join(self._pick(ASCII_LETTERS + "oils") for _ in range(count))
            return draw_text(text, PRINT.fonts, self.rng)
        letters = [draw_strokes(parse_strokes(self._pick(LETTERS)), self.rng, WORD_PEN) for _ in range(count)]
        return self._side_by_side(letters, gaps=(-3, 6), drift=0.08)

    def symbol(self) -> Ink:
        """Draw or print a sign."""
        if self.rng.random() < 0.4:
            return draw_text(self._pick(PRINT_SYMBOLS), SYMBOL_FONTS, self.rng)
        return self._draw_style(SYMBOLS, FIGURE_PEN)

    def shape(self) -> Ink:
        """Draw a heart, star or other shape, some filled."""
        ink = self._draw_style(SHAPES, FIGURE_PEN)
        if self.rng.random() < 0.2:
            outline, _ = cv2.findContours(
                (ink > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
            )
            cv2.fillPoly(ink, outline, 1.0)
        return ink

    def doodle(self) -> Ink:
        """Draw a house, a face or another thing."""
        return self._draw_style(DOODLES, FIGURE_PEN)

    def invented_letter(self) -> Ink:
        """Draw three to five random strokes."""
        curves = self.rng.uniform(0, 1, (int(self.rng.integers(3, 6)), 3, 2))
        corners = int(self.rng.integers(2, 4))
        return self._draw_curves([self._maybe_smooth(curve[:corners]) for curve in curves], (3, 9))

    def number(self) -> Ink:
        """Write two or three digits side by side."""
        return self._digits_side_by_side(2 if self.rng.random() < 0.7 else 3)

    def long_number(self) -> Ink:
        """Write four to six digits side by side."""
        return self._digits_side_by_side(int(self.rng.integers(4, 7)))

    def half_digit(self) -> Ink:
        """Cut a digit in halves, and return one that reads as no digit."""
        for _ in range(MAX_ATTEMPTS):
            label, digit = self._pick_digit()
            if label not in HALVES:
                continue
            height, width = (max(3, round(self.rng.uniform(0.3, 0.5) * side)) for side in digit.shape)
            halves = {
                "top": digit[:height],
                "bottom": digit[-height:],
                "left": digit[:, :width],
                "right": digit[:, -width:],
            }
            half = crop(halves[self._pick(HALVES[label])])
            # A half with most of the ink may read as the whole digit, and a narrow one as 1.
            if half.sum() < 0.6 * digit.sum() and half.shape[1] > 0.45 * half.shape[0]:
                return half
        return self.letter()

    def digit_and_piece(self) -> Ink:
        """Join a digit with a piece of its neighbour."""
        (_, digit), (_, neighbor) = self._pick_digit(), self._pick_digit()
        width = max(4, round(self.rng.uniform(0.45, 0.75) * neighbor.shape[1]))
        is_right = self.rng.random() < 0.5
        piece = _resize(neighbor[:, :width] if is_right else neighbor[:, -width:], self._stretch(0.2))
        return self._side_by_side([digit, piece] if is_right else [piece, digit], gaps=(-3, 4), drift=0.08)

    def turned_digit(self) -> Ink:
        """Turn a digit by quarters."""
        for _ in range(MAX_ATTEMPTS):
            label, digit = self._pick_digit()
            if label in QUARTER_TURNS:
                turns = QUARTER_TURNS[label]
                return np.ascontiguousarray(np.rot90(digit, turns[int(self.rng.integers(len(turns)))]))
        return self.letter()

    def scribble(self) -> Ink:
        """Draw a random curve, a zigzag, a bundle of strokes or loops."""
        rng = self.rng
        style = int(rng.integers(4))
        if style == 0:
            return self._draw_curves([smooth(rng.uniform(0, 1, (int(rng.integers(8, 18)), 2)))], (2, 9))
        if style == 1:
            count = int(rng.integers(5, 14))
            x = np.linspace(0, 1, count) + rng.normal(0, 0.04, count)
            y = 0.5 + rng.uniform(0.1, 0.45) * (-1) ** np.arange(count) + rng.normal(0, 0.06, count)
            return self._draw_curves([self._maybe_smooth(np.stack((x, y), axis=1))], (2, 9))
        if style == 2:
            starts = rng.uniform(0, 1, (int(rng.integers(4, 10)), 2))
            return self._draw_curves(
                [np.stack((start, start + rng.normal(0, 0.35, 2))) for start in starts], (2, 8)
            )
        t = np.linspace(0, rng.uniform(2.5, 7) * 2 * np.pi, 150)
        drift = np.linspace(-1, 1, 150) * rng.uniform(1, 3)
        curve = np.stack((np.cos(t) + drift, rng.uniform(0.6, 1.5) * np.sin(t)), axis=1)
        return self._draw_curves([curve / np.abs(curve).max() / 2 + 0.5], (2, 9))

    def spiral(self) -> Ink:
        """Draw a spiral of two to four turns."""
        t = np.linspace(0, self.rng.uniform(2, 4) * 2 * np.pi, 150)
        curve = np.stack((np.cos(t), np.sin(t) * self.rng.uniform(0.7, 1.3)), axis=1)
        return self._draw_curves([curve * (t / t[-1])[:, None] / 2.6 + 0.5], (2, 7))

    def frame(self) -> Ink:
        """Draw a box, some of its sides, a crossing or ruled lines, with straight edges."""
        angle = self.rng.normal(0, 0.05)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = [np.array(stroke) for stroke in parse_strokes(self._pick(FRAMES))]
        # A narrow box is a 0 of seven segments, and with a middle line an 8.
        is_box = len(corners[0]) == _BOX_CORNERS
        narrowest = 0.5 if self.rng.random() < 0.3 and not is_box else 0.8
        width, shift = self.rng.uniform(narrowest, 1), self.rng.uniform(-0.2, 0.2, 2)
        # A middle line is shifted.
        corners = [np.where(stroke == 0.5, 0.5 + shift, stroke) - 0.5 for stroke in corners]
        return self._draw_curves([(stroke * (width, 1)) @ turn + 0.5 for stroke in corners], (1, 8))

    def grid(self) -> Ink:
        """Draw a part of a table or of squared paper."""
        columns, rows = self.rng.integers(2, 5, 2)
        margin = self.rng.uniform(0, 0.1)
        vertical = [np.array([(x, 0), (x, 1)]) for x in np.linspace(margin, 1 - margin, columns + 1)]
        horizontal = [np.array([(0, y), (1, y)]) for y in np.linspace(0, 1, rows + 1)]
        return self._draw_curves(vertical + horizontal, (1, 6))

    def figure(self) -> Ink:
        """Draw three to six ellipses, polygons and lines that touch or overlap."""
        rng, curves = self.rng, []
        for _ in range(int(rng.integers(3, 7))):
            style = self._pick(("ellipse", "polygon", "line"))
            corners = {"ellipse": 25, "polygon": int(rng.integers(4, 6)), "line": 2}[style]
            turn = np.pi if style == "line" else 2 * np.pi
            t = rng.uniform(0, 2 * np.pi) + np.linspace(0, turn, corners)
            size = np.exp(rng.normal(-1.4, 0.5)) * np.exp(rng.normal(0, 0.3, 2))
            center = rng.normal(0.5, 0.17, 2)
            curves.append(np.clip(center + size * np.stack((np.cos(t), np.sin(t)), axis=1), -0.1, 1.1))
        return self._draw_curves(curves, (2, 8))

    def blob(self) -> Ink:
        """Draw a filled spot, round or irregular; some blurred or fading to one side."""
        rng = self.rng
        t = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        radii = 0.35 * np.exp(rng.normal(0, rng.uniform(0, 0.3), (16, 1)))
        outline = np.stack((np.cos(t), np.sin(t) * rng.uniform(0.55, 1)), axis=1) * radii
        corners = (self._maybe_smooth(outline) + 0.5) * CANVAS
        canvas = _blank()
        cv2.fillPoly(canvas, [corners.astype(np.int32)], 1.0)
        canvas = np.ascontiguousarray(np.rot90(canvas, int(rng.integers(4))))
        style = rng.random()
        if style < 0.3:
            return np.asarray(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(1, 6)), np.float32)
        return canvas * np.clip(0.5 + 0.6 * self._along(), 0, 1) if style < 0.6 else canvas

    def shadow_edge(self) -> Ink:
        """Draw a half plane, a band or a corner, from hard edges to soft gradients."""
        rng = self.rng
        along, across = self._along() - rng.uniform(-0.5, 0.5), self._along() - rng.uniform(-0.5, 0.5)
        distance = (along, rng.uniform(0.4, 0.7) - np.abs(along), np.minimum(along, across))
        ink = np.clip(0.5 + distance[int(rng.integers(3))] / np.exp(rng.uniform(-4, 0.3)), 0, 1)
        if rng.random() < 0.4:
            ink *= np.clip(0.6 - rng.uniform(0, 1) * across, 0, 1)
        height, width = (rng.uniform(0.5, 1, 2) * CANVAS).astype(int)
        part = crop(np.ascontiguousarray(ink[:height, :width]))
        # A narrow part reads as 1.
        is_wide = part.any() and part.shape[1] > 0.6 * part.shape[0]
        return part if is_wide else self.shadow_edge()

    def specks(self) -> Ink:
        """Scatter three to thirty dots of noise."""
        canvas = _blank()
        for x, y in self.rng.integers(6, CANVAS - 6, (int(self.rng.integers(3, 31)), 2)).tolist():
            radius, level = int(self.rng.integers(1, 5)), float(self.rng.uniform(0.4, 1))
            cv2.circle(canvas, (x, y), radius, level, -1, cv2.LINE_AA)
        return canvas

    def texture(self) -> Ink:
        """Threshold smooth noise, as paper's grain and background patterns are."""
        grain = self.rng.standard_normal((CANVAS, CANVAS), np.float32)
        noise = cv2.GaussianBlur(grain, (0, 0), self.rng.uniform(1.5, 8))
        level = np.quantile(noise, self.rng.uniform(0.5, 0.85))
        softness = noise.std() * self.rng.uniform(0.1, 1)
        return np.asarray(np.clip((noise - level) / softness, 0, 1), np.float32)

    def punctuation(self) -> Ink:
        """Draw a dot, a dash, a comma, a colon or an ellipsis."""
        rng = self.rng
        canvas, middle = _blank(), CANVAS // 2
        radius = int(rng.integers(4, 14))
        style = self._pick(("dot", "dash", "comma", "colon", "ellipsis"))
        if style == "dot":
            axes = (radius, round(radius * rng.uniform(0.65, 1.0)))
            cv2.ellipse(canvas, (middle, middle), axes, rng.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_AA)
        elif style == "dash":
            angle = rng.normal(0, 0.15)
            end = np.array((np.cos(angle), np.sin(angle))) * rng.uniform(0.15, 0.4) * CANVAS
            draw_polyline(canvas, np.stack((middle - end, middle + end)), radius)
        elif style == "comma":
            # A comma that is long for its width reads as 1.
            tail = middle - rng.uniform(0, radius), middle + rng.uniform(0.6, 1.3) * radius
            cv2.circle(canvas, (middle, middle), radius, 1.0, -1, cv2.LINE_AA)
            draw_polyline(canvas, np.array([(middle, middle), tail]), max(2, radius // 2))
        else:
            radius = max(2, radius // 2)
            count = 2 if style == "colon" else int(rng.integers(2, 4))
            offsets = 2 * radius + np.arange(count) * radius * rng.uniform(2.6, 5)
            for offset in offsets.astype(int).tolist():
                center = (middle, offset) if style == "colon" else (offset, middle)
                cv2.circle(canvas, center, radius, 1.0, -1, cv2.LINE_AA)
        return canvas

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _pick_digit(self) -> tuple[int, Ink]:
        """Return the label of a random digit, and the digit, cropped to its ink."""
        index = int(self.rng.integers(len(self.digits)))
        return int(self.digits.labels[index]), crop(self.digits.images[index].astype(np.float32) / 255)

    def _draw_style(self, styles: Sequence[str], pen: PenConfig = LETTER_PEN) -> Ink:
        return draw_strokes(parse_strokes(self._pick(styles)), self.rng, pen)

    def _draw_curves(self, curves: Sequence[NDArray[np.float64]], thickness: tuple[int, int]) -> Ink:
        """Draw polylines of corners (x, y) in 0..1 with one random thickness in pixels."""
        canvas, width = _blank(), int(self.rng.integers(*thickness))
        for curve in curves:
            draw_polyline(canvas, (0.1 + 0.8 * curve) * CANVAS, width)
        return canvas

    def _maybe_smooth(self, corners: NDArray[np.float64]) -> NDArray[np.float64]:
        return smooth(corners) if self.rng.random() < 0.6 else corners

    def _digits_side_by_side(self, count: int) -> Ink:
        scale = self.rng.uniform(1, 2)
        parts = [_resize(self._pick_digit()[1], scale * self._stretch(0.25)) for _ in range(count)]
        return self._side_by_side(parts, gaps=(-6, 8), drift=0.1)

    def _stretch(self, spread: float) -> NDArray[np.float64]:
        """Return random factors for width and height, between 1 - spread and 1 + spread."""
        return self.rng.uniform(1 - spread, 1 + spread, 2)

    def _side_by_side(self, parts: Sequence[Ink], gaps: tuple[int, int], drift: float) -> Ink:
        """Join parts from left to right.

        `gaps` bounds the gaps in pixels. `drift` is the standard deviation of the middles of the parts up and
        down, as a fraction of the tallest part's height.
        """
        tallest, most = max(part.shape[0] for part in parts), gaps[1]
        canvas = np.zeros((3 * tallest, sum(part.shape[1] + most for part in parts)), np.float32)
        left = 0
        for part in parts:
            height, width = part.shape
            middle = 1.5 * tallest + self.rng.normal(0, drift * tallest)
            top = min(max(int(middle - height / 2), 0), 3 * tallest - height)
            area = canvas[top : top + height, left : left + width]
            np.maximum(area, part, out=area)
            # At most a quarter of a part is covered, so that a narrow 1 does not vanish in its neighbour.
            left += width + max(int(self.rng.integers(*gaps)), -width // 4)
        return canvas

    def _along(self) -> Ink:
        """Return each pixel's coordinate along a random direction, -1..1 on its axes: [CANVAS, CANVAS]."""
        axis, angle = np.linspace(-1, 1, CANVAS, dtype=np.float32), self.rng.uniform(0, 2 * np.pi)
        return np.float32(np.cos(angle)) * axis + np.float32(np.sin(angle)) * axis[:, None]


@dataclass(frozen=True)
class Kind:
    """A kind of negative: its drawing method, and its relative frequency in training, 0 if it is held out."""

    draw: Callable[[Sketcher], Ink]
    weight: int = 0

    @property
    def is_held_out(self) -> bool:
        """True if no network is fitted on this kind."""
        return not self.weight


KINDS = {
    "letters": Kind(Sketcher.letter, 7),
    "printed letters": Kind(Sketcher.printed_letter, 3),
    "invented letters": Kind(Sketcher.invented_letter, 3),
    "words": Kind(Sketcher.word, 4),
    "numbers": Kind(Sketcher.number, 5),
    "halves of digits": Kind(Sketcher.half_digit, 3),
    "digits with a piece of a neighbour": Kind(Sketcher.digit_and_piece, 4),
    "turned digits": Kind(Sketcher.turned_digit, 2),
    "symbols": Kind(Sketcher.symbol, 4),
    "shapes": Kind(Sketcher.shape, 2),
    "figures": Kind(Sketcher.figure, 4),
    "scribbles": Kind(Sketcher.scribble, 4),
    "frames": Kind(Sketcher.frame, 4),
    "blobs": Kind(Sketcher.blob, 2),
    "shadow edges": Kind(Sketcher.shadow_edge, 3),
    "specks": Kind(Sketcher.specks, 2),
    "punctuation": Kind(Sketcher.punctuation, 2),
    # These kinds are held out of training, to judge the refusal of what no network has seen.
    "letters of other fonts": Kind(Sketcher.otherwise_printed_letter),
    "letters of other scripts": Kind(Sketcher.foreign_letter),
    "long numbers": Kind(Sketcher.long_number),
    "doodles": Kind(Sketcher.doodle),
    "spirals": Kind(Sketcher.spiral),
    "grids": Kind(Sketcher.grid),
    "textures": Kind(Sketcher.texture),
}
"""Kinds of negatives by name."""


def draw_negatives(count: int, rng: np.random.Generator, digits: Examples) -> Examples:
    """Return `count` negatives of the kinds for training, normalised as in serving.

    `digits` are MNIST's digits, from which some kinds take parts.
    """
    kinds = [kind for kind in KINDS.values() if not kind.is_held_out]
    weights = np.array([kind.weight for kind in kinds], float)
    chosen = rng.choice(len(kinds), count, p=weights / weights.sum())
    return _draw([kinds[index] for index in chosen.tolist()], rng, digits)


def draw_kind(name: str, count: int, rng: np.random.Generator, digits: Examples) -> Examples:
    """Return `count` negatives of one kind, normalised as in serving; `digits` as in `draw_negatives`."""
    return _draw([KINDS[name]] * count, rng, digits)


def _draw(kinds: Sequence[Kind], rng: np.random.Generator, digits: Examples) -> Examples:
    sketcher = Sketcher(rng, digits)
    images = [fit_to_mnist_canvas(crop(kind.draw(sketcher))) for kind in kinds]
    return Examples(np.array(images, np.uint8).reshape(-1, 28, 28), np.full(len(images), NO_DIGIT, np.uint8))


def _blank() -> Ink:
    return np.zeros((CANVAS, CANVAS), np.float32)


def _resize(ink: Ink, factors: NDArray[np.float64]) -> Ink:
    """Scale width and height by the factors, to at least two pixels."""
    height, width = ink.shape
    size = max(2, round(width * factors[0])), max(2, round(height * factors[1]))
    return np.asarray(cv2.resize(ink, size, interpolation=cv2.INTER_LINEAR), np.float32)
