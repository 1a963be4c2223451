"""Panels of displays and counters, as grey levels, with a map of which digit each pixel belongs to."""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.reading.peaks import SIGN
from digit_training.drawing.displays import ALL, Face
from digit_training.drawing.synthetic import draw_text
from digit_training.reader.handwriting import GlyphBank, Ink, paste, pick, transform
from digit_training.reader.surfaces import Levels, noise

_HEIGHTS = (12.0, 40.0, 62.0)
"""Least, most frequent and largest height of a digit in pixels."""
_IS_INK = 0.4
"""Ink, in 0..1, above which a pixel belongs to its digit."""
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold", "cmss10")
"""Fonts of wheels."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A digit or a sign on a panel, by its label; `area` is that of all its ink, in pixels."""

    label: int
    area: int


@dataclass
class Panel:
    """Levels of a display or a counter, and its marks: `owner` is 0, or 1 + the index of a pixel's mark."""

    levels: Levels
    owner: NDArray[np.uint8]
    marks: list[Mark] = field(default_factory=list)
    is_counter: bool = False
    """True if wheels show the digits, of which half a one is enough."""

    def put(self, ink: Ink, canvas: Ink, left: float, top: float, label: int | None = None) -> None:
        """Put ink on a canvas, which may lie outside in part; with a label, it owns its pixels."""
        pasted = paste(ink, canvas, left, top)
        if pasted and label is not None:
            area, part = pasted
            self.marks.append(Mark(label, int((ink > _IS_INK).sum())))
            self.owner[area][ink[part] > _IS_INK] = len(self.marks)

    def tilt(self, rng: np.random.Generator) -> None:
        """Turn the panel by up to ten degrees, and look at it from one side."""
        rows, columns = self.owner.shape
        corners = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
        angle = np.deg2rad(rng.normal(0, 1.5) if rng.random() < 0.7 else rng.uniform(-10, 10))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        middle = np.array([columns / 2, rows / 2])
        moved = (corners - middle) @ turn + middle + rng.normal(0, 0.03, (4, 2)) * rows
        matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        size = columns, rows
        self.levels = np.asarray(
            cv2.warpPerspective(self.levels, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.float32
        )
        self.owner = np.asarray(cv2.warpPerspective(self.owner, matrix, size, flags=cv2.INTER_NEAREST))


def draw_panel(
    bank: GlyphBank, shape: tuple[int, int], rng: np.random.Generator, *, shows_digits: bool = True
) -> Panel:
    """Draw a display or a counter; without digits, a display that shows letters, ghosts or nothing."""
    panel = Panel(np.zeros(shape, np.float32), np.zeros(shape, np.uint8))
    if shows_digits and rng.random() < 0.4:
        _draw_wheels(panel, rng)
    else:
        _Display(panel, bank, rng, shows_digits).draw()
    panel.tilt(rng)
    return panel


class _Display:
    """Draws a display of segments or dots; `lit` is the ink of the shown ones, `ghost` that of all."""

    def __init__(self, panel: Panel, bank: GlyphBank, rng: np.random.Generator, shows_digits: bool) -> None:
        self.panel, self.bank, self.rng, self.shows_digits = panel, bank, rng, shows_digits
        self.lit, self.ghost = np.zeros_like(panel.levels), np.zeros_like(panel.levels)
        self.height = _any_height(rng)
        self.face = Face.any(rng)

    def draw(self) -> None:
        """Write one to three rows, light them up, and often put a bezel around them."""
        rng, (rows, columns) = self.rng, self.lit.shape
        top = rng.uniform(0.1, max(0.11, rows / self.height - 1.1)) * self.height
        left = rng.uniform(0, 0.4) * self.height if rng.random() < 0.7 else rng.uniform(0, 0.5) * columns
        first, bottom, end = top, top, left
        for _ in range(1 if rng.random() < 0.75 else 3):
            if top + self.height > rows + 0.1 * self.height:
                break
            end = max(end, self._write(left, top))
            bottom = top + self.height
            top = bottom + self.height * rng.uniform(0.2, 0.8)
            self.height = max(12.0, self.height * (1.0 if rng.random() < 0.5 else rng.uniform(0.4, 1)))
        labels = rng.choice(3, p=(0.55, 0.3, 0.15)) if self.shows_digits else rng.integers(1, 4)
        for _ in range(int(labels)):
            self._add_label()
        self.panel.levels = np.asarray(self._light_up(), np.float32)
        if rng.random() < 0.55:
            self._frame((left, first, end, bottom))

    def _write(self, left: float, top: float) -> float:
        """Write a row of cells, with their unlit segments as ghosts; return where it ends."""
        rng, face, height = self.rng, self.face, self.height
        gap = rng.uniform(0.08, 0.2) if rng.random() < 0.5 else rng.uniform(0.2, 0.5)
        cells = int(rng.integers(1, 9))
        blank = int(rng.integers(0, cells)) if rng.random() < 0.35 else 0
        point = int(rng.integers(blank, cells)) if rng.random() < 0.45 else -1
        pen = height * max(face.thickness, 0.07) * rng.uniform(0.8, 1.4)
        every = face.draw(ALL, height)
        is_blank = not self.shows_digits and rng.random() < 0.4
        for cell in range(cells):
            if left > self.lit.shape[1]:
                break
            self.panel.put(every, self.ghost, left, top)
            text = " " if cell < blank or is_blank else str(int(rng.integers(10)))
            if text != " " and not self.shows_digits:
                text = pick(face.characters, rng)
            elif self.shows_digits and cell == blank - 1 and rng.random() < 0.2:
                text = "-"
            ink = face.draw(text, height)
            label = int(text) if text.isdigit() else SIGN if text == "-" else None
            self.panel.put(ink, self.lit, left, top, label)
            if cell == point and self.shows_digits:
                left += self._write_point(left + height * face.width, top, pen)
            left += height * (face.width + gap)
        return left

    def _write_point(self, left: float, top: float, pen: float) -> float:
        """Write a decimal point, or a colon, after a digit; return the room that it takes."""
        rng, height, side = self.rng, self.height, max(2, round(pen))
        dot = np.ones((side, side), np.float32)
        if side > 4 and rng.random() < 0.5:
            dot = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.float32)
        room = float(rng.choice((0.0, 1.5))) * pen
        left += 0.15 * pen + rng.uniform(0, 0.5) * max(room, 0.1)
        if rng.random() < 0.75:
            self.panel.put(dot, self.lit, left, top + height - side, SIGN)
            return room
        colon = np.zeros((round(height * rng.uniform(0.35, 0.5)), side), np.float32)
        colon[:side], colon[-side:] = dot, dot
        self.panel.put(colon, self.lit, left + 0.5 * pen, top + (height - len(colon)) / 2, SIGN)
        return 2 * pen

    def _add_label(self) -> None:
        """Add a unit, an icon or the bars of a battery where nothing is shown."""
        rng = self.rng
        height = rng.uniform(6, 26)
        kind = rng.random()
        if kind < 0.25:
            # Bars as high as digits would read as 1s.
            bars, step = np.zeros((int(rng.integers(4, 10)), 40), np.float32), int(rng.integers(3, 9))
            for left in range(0, step * int(rng.integers(1, 5)), step):
                bars[:, left : left + max(2, step - int(rng.integers(1, 4)))] = 1
            ink: Ink = np.ascontiguousarray(np.rot90(bars)) if rng.random() < 0.3 else bars
        else:
            glyph = self.bank.word(rng) if kind < 0.7 else self.bank.sketch(rng)
            ink = transform(glyph, min(height, 150 * glyph.shape[0] / glyph.shape[1]), 1, 0, 0)
        left, top = (int(rng.uniform(-0.1, 0.95) * side) for side in self.lit.shape[::-1])
        x, y = max(left, 0), max(top, 0)
        if not self.panel.owner[y : top + ink.shape[0] + 2, x : left + ink.shape[1] + 2].any():
            self.panel.put(ink, self.lit, left, top)

    def _light_up(self) -> NDArray[np.floating]:
        """Return the levels of an LCD, whose shown segments are dark, or of an LED or a negative LCD."""
        rng, lit, height = self.rng, self.lit, self.height
        # Strong ghosts beside nothing would look like faint digits.
        strongest = 0.25 if self.panel.marks else 0.07
        ghosts = (rng.uniform(0.02, strongest) if rng.random() < 0.6 else 0.0) * self.ghost * (1 - lit)
        kind = rng.random()
        if kind < 0.5:
            ground = rng.uniform(90, 240) if rng.random() < 0.85 else rng.uniform(45, 110)
            contrast = rng.uniform(0.45, 0.95) if rng.random() < 0.65 else rng.uniform(0.15, 0.45)
            shift = rng.uniform(-0.08, 0.08, 2) * height
            shadow = cv2.warpAffine(lit, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), lit.shape[::-1])
            shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.4, 0.02 * height)) * rng.uniform(0, 0.35)
            return np.asarray(ground * (1 - contrast * np.maximum(np.maximum(lit, shadow), ghosts)))
        ground = rng.uniform(2, 70)
        peak = rng.uniform(max(90.0, ground + 50), 255)
        glow = np.zeros_like(lit)
        if kind < 0.85:
            for spread in (0.05, 0.25):
                glow += cv2.GaussianBlur(lit, (0, 0), spread * height) * rng.uniform(0, 0.45)
            # Bloom: a bright segment spreads over its gaps.
            bloom = max(0.3, rng.uniform(0, 0.04) * height)
            lit = np.clip(cv2.GaussianBlur(lit, (0, 0), bloom) * 1.4, 0, 1)
        return np.asarray(ground + (peak - ground) * np.clip(lit + glow + ghosts, 0, 1.15))

    def _frame(self, box: tuple[float, float, float, float]) -> None:
        """Put a bezel with an edge around the box, and often a reflection or scan lines over it."""
        rng, (rows, columns) = self.rng, self.lit.shape
        margins = rng.uniform(0.1, 0.7, 4) * self.height
        corner = max(0, int(box[0] - margins[0])), max(0, int(box[1] - margins[1]))
        end = int(box[2] + margins[2]), int(box[3] + margins[3])
        bezel = np.full((rows, columns), rng.uniform(5, 250), np.float32)
        bezel += rng.uniform(0, 8) * noise(bezel.shape, rng.uniform(1, 20), rng)
        cv2.rectangle(bezel, corner, end, rng.uniform(0, 255), int(rng.integers(1, 6)))
        window = slice(corner[1], end[1]), slice(corner[0], end[0])
        bezel[window] = self.panel.levels[window]
        if rng.random() < 0.3:
            y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
            slope, width = rng.uniform(-1.5, 1.5), rng.uniform(5, 60)
            distance = (x + slope * y - rng.uniform(0, columns)) / width
            bezel += (rng.uniform(5, 60) * np.exp(-(distance**2))).astype(np.float32)
        if rng.random() < 0.1:
            bezel[:: int(rng.integers(2, 4))] *= rng.uniform(0.6, 0.95)
        self.panel.levels = bezel


def _draw_wheels(panel: Panel, rng: np.random.Generator) -> None:
    """Draw a counter: wheels behind windows, the last ones of another colour, often between two digits."""
    rows, columns = panel.levels.shape
    panel.is_counter, wheels = True, _Wheels.any(rng)
    ground, grain = rng.uniform(10, 240), rng.uniform(0, 8)
    panel.levels[:] = ground + grain * noise((rows, columns), rng.uniform(1, 20), rng)
    top, left = int(rng.uniform(0, max(1, rows - wheels.window))), int(rng.uniform(0, 0.6) * wheels.height)
    cells = int(rng.integers(1, 9))
    last = cells - (int(rng.integers(1, 4)) if rng.random() < 0.4 else 0)
    for cell in range(cells):
        if left + wheels.width > columns:
            break
        if cell == last:
            wheels = replace(wheels, ground=rng.uniform(30, 130), pen=rng.uniform(170, 255))
        is_rolling = rng.random() < (0.55 if cell == cells - 1 else 0.08)
        shown = wheels.turn(panel.marks, rng.uniform(0, 1) if is_rolling else rng.normal(0, 0.05), rng)
        window = slice(top, top + wheels.window), slice(left, left + wheels.width)
        size = panel.levels[window].shape
        panel.levels[window], panel.owner[window] = shown.levels[: size[0]], shown.owner[: size[0]]
        left += wheels.width + wheels.apart
    if rng.random() < 0.4:
        corner, end = (0, top - 1), (left, top + wheels.window)
        cv2.rectangle(panel.levels, corner, end, rng.uniform(0, 255), int(rng.integers(1, 4)))


@dataclass(frozen=True)
class _Wheels:
    """Look that the wheels of a counter share; lengths are in pixels."""

    height: float
    font: str
    stretch: float
    window: int
    width: int
    apart: int
    pitch: float
    """Distance of a digit from the next one on its wheel."""
    ground: float
    pen: float
    shade: float
    """Shadow of the window on the edges of the round wheel, 0 to 1."""

    @classmethod
    def any(cls, rng: np.random.Generator) -> "_Wheels":
        """Return a random look."""
        height = _any_height(rng)
        dark, light = float(rng.uniform(5, 80)), float(rng.uniform(140, 250))
        is_light = rng.random() < 0.65
        return cls(
            height,
            font=pick(_FONTS, rng),
            stretch=float(rng.uniform(0.7, 1.2)),
            window=round(height * rng.uniform(1.02, 1.7)),
            width=round(height * rng.uniform(0.72, 1.25)),
            apart=int(height * rng.uniform(0, 0.35)) if rng.random() < 0.7 else 0,
            pitch=float(height * rng.uniform(1.06, 1.6)),
            ground=dark if is_light else light,
            pen=light if is_light else dark,
            shade=float(rng.uniform(0, 0.7)),
        )

    def turn(self, marks: list[Mark], phase: float, rng: np.random.Generator) -> Panel:
        """Draw a wheel in its window: a digit, moved up by `phase` of the pitch, beside its neighbours."""
        ink = np.zeros((self.window, self.width), np.float32)
        wheel = Panel(ink, np.zeros(ink.shape, np.uint8), marks)
        label = int(rng.integers(10))
        for step in (-1, 0, 1):
            digit = (label + step) % 10
            glyph = transform(draw_text(str(digit), (self.font,), rng), self.height, self.stretch, 0, 0)
            top = (self.window - glyph.shape[0]) / 2 + (step - phase) * self.pitch
            wheel.put(glyph, ink, (self.width - glyph.shape[1]) / 2, top, digit)
        across = np.abs(np.linspace(-1, 1, self.window, dtype=np.float32))[:, np.newaxis]
        levels = (self.ground + (self.pen - self.ground) * ink) * (1 - self.shade * across**3)
        wheel.levels = np.asarray(levels, np.float32)
        return wheel


def _any_height(rng: np.random.Generator) -> float:
    return float(np.exp(rng.triangular(*np.log(_HEIGHTS))))
