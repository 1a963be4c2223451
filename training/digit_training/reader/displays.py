"""Panels of displays and counters, as grey levels, with a map of which digit each pixel belongs to."""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.reading.peaks import SIGN
from digit_training.drawing.displays import ALL, Face
from digit_training.drawing.synthetic import draw_text
from digit_training.reader.handwriting import GlyphBank, Ink, pick, transform
from digit_training.reader.surfaces import Levels, noise

MAX_HEIGHT = 62.0
"""Largest height of a digit in pixels."""
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold", "cmss10")
"""Fonts of wheels."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A digit or a sign on a panel, by its label; `area` is that of all its ink, in pixels."""

    label: int
    area: int
    is_rolling: bool = False
    """True for a wheel, of which half a digit is enough."""


@dataclass
class Panel:
    """Levels of a display or a counter, and its marks: `owner` is 0, or 1 + the index of a pixel's mark."""

    levels: Levels
    owner: NDArray[np.uint8]
    marks: list[Mark] = field(default_factory=list)

    def put(self, ink: Ink, canvas: Ink, left: float, top: float, mark: Mark | None = None) -> None:
        """Put ink on a canvas, which may lie outside in part; a mark becomes the owner of its pixels."""
        x, y = round(left), round(top)
        rows, columns = canvas.shape
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + ink.shape[1], columns), min(y + ink.shape[0], rows)
        if x1 <= x0 or y1 <= y0:
            return
        part, area = ink[y0 - y : y1 - y, x0 - x : x1 - x], (slice(y0, y1), slice(x0, x1))
        np.maximum(canvas[area], part, out=canvas[area])
        if mark:
            self.marks.append(mark)
            self.owner[area][part > _IS_INK] = len(self.marks)

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


_IS_INK = 0.4


def area_of(ink: Ink) -> int:
    """Return the number of the ink's pixels."""
    return int((ink > _IS_INK).sum())


def draw_panel(
    bank: GlyphBank, shape: tuple[int, int], rng: np.random.Generator, *, shows_digits: bool = True
) -> Panel:
    """Draw a display or a counter; without digits, a display that shows letters, ghosts or nothing."""
    panel = Panel(np.zeros(shape, np.float32), np.zeros(shape, np.uint8))
    if shows_digits and rng.random() < 0.4:
        _draw_wheels(panel, rng)
    else:
        _draw_display(panel, bank, rng, shows_digits=shows_digits)
    panel.tilt(rng)
    return panel


def _draw_display(panel: Panel, bank: GlyphBank, rng: np.random.Generator, *, shows_digits: bool) -> None:
    rows, columns = panel.levels.shape
    lit, ghost = np.zeros_like(panel.levels), np.zeros_like(panel.levels)
    height = float(np.exp(rng.triangular(*np.log((12, 40, MAX_HEIGHT)))))
    face = Face.any(rng)
    top = rng.uniform(0.1, max(0.11, rows / height - 1.1)) * height
    left = rng.uniform(0, 0.4) * height if rng.random() < 0.7 else rng.uniform(0, 0.5) * columns
    first, bottom, end = top, top, left
    for _ in range(1 if rng.random() < 0.75 else 3):
        if top + height > rows + 0.1 * height:
            break
        end = max(end, _write(panel, (lit, ghost), face, (left, top, height), rng, shows_digits=shows_digits))
        bottom = top + height
        top = bottom + height * rng.uniform(0.2, 0.8)
        height = max(12.0, height * (1.0 if rng.random() < 0.5 else rng.uniform(0.4, 1)))
    for _ in range(int(rng.choice(3, p=(0.55, 0.3, 0.15)) if shows_digits else rng.integers(1, 4))):
        _add_label(panel, lit, bank, rng)
    _light_up(panel, lit, ghost, height, rng)
    if rng.random() < 0.55:
        _frame(panel, (left, first, end, bottom), height, rng)


def _write(
    panel: Panel,
    canvases: tuple[Ink, Ink],
    face: Face,
    place: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    shows_digits: bool,
) -> float:
    """Write a row of cells, with their unlit segments as ghosts; return where it ends."""
    (lit, ghost), (left, top, height) = canvases, place
    pitch = height * (face.width + (rng.uniform(0.08, 0.2) if rng.random() < 0.5 else rng.uniform(0.2, 0.5)))
    cells = int(rng.integers(1, 9))
    blank = int(rng.integers(0, cells)) if rng.random() < 0.35 else 0
    point = int(rng.integers(blank, cells)) if rng.random() < 0.45 else -1
    pen = height * max(face.thickness, 0.07) * rng.uniform(0.8, 1.4)
    every = face.draw(ALL, height)
    is_blank = not shows_digits and rng.random() < 0.4
    for cell in range(cells):
        if left > lit.shape[1]:
            break
        panel.put(every, ghost, left, top)
        text = " " if cell < blank or is_blank else str(int(rng.integers(10)))
        if text != " " and not shows_digits:
            text = pick(face.characters, rng)
        elif shows_digits and cell == blank - 1 and rng.random() < 0.2:
            text = "-"
        ink = face.draw(text, height)
        mark = (
            Mark(int(text) if text.isdigit() else SIGN, area_of(ink))
            if text.isdigit() or text == "-"
            else None
        )
        panel.put(ink, lit, left, top, mark)
        if cell == point and shows_digits:
            left += _write_point(panel, lit, (left + height * face.width, top, height, pen), rng)
        left += pitch
    return left


def _write_point(
    panel: Panel, lit: Ink, place: tuple[float, float, float, float], rng: np.random.Generator
) -> float:
    """Write a decimal point, or a colon, after a digit; return the room that it takes."""
    left, top, height, pen = place
    side = max(2, round(pen))
    dot = np.ones((side, side), np.float32)
    if side > 4 and rng.random() < 0.5:
        dot = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.float32)
    room = float(rng.choice((0.0, 1.5))) * pen
    left += 0.15 * pen + rng.uniform(0, 0.5) * max(room, 0.1)
    if rng.random() < 0.75:
        panel.put(dot, lit, left, top + height - side, Mark(SIGN, area_of(dot)))
        return room
    colon = np.zeros((round(height * rng.uniform(0.35, 0.5)), side), np.float32)
    colon[:side], colon[-side:] = dot, dot
    panel.put(colon, lit, left + 0.5 * pen, top + (height - len(colon)) / 2, Mark(SIGN, area_of(colon)))
    return 2 * pen


def _add_label(panel: Panel, lit: Ink, bank: GlyphBank, rng: np.random.Generator) -> None:
    """Add a unit, an icon or the bars of a battery where nothing is shown."""
    height = rng.uniform(6, 26)
    kind = rng.random()
    if kind < 0.25:
        # Bars as high as digits would read as 1s.
        bars, step = np.zeros((int(rng.integers(4, 10)), 40), np.float32), int(rng.integers(3, 9))
        for left in range(0, step * int(rng.integers(1, 5)), step):
            bars[:, left : left + max(2, step - int(rng.integers(1, 4)))] = 1
        ink: Ink = np.ascontiguousarray(np.rot90(bars)) if rng.random() < 0.3 else bars
    else:
        glyph = bank.word(rng) if kind < 0.7 else bank.sketch(rng)
        ink = transform(glyph, min(height, 150 * glyph.shape[0] / glyph.shape[1]), 1, 0, 0)
    left, top = (int(rng.uniform(-0.1, 0.95) * side) for side in lit.shape[::-1])
    x, y = max(left, 0), max(top, 0)
    if not panel.owner[y : top + ink.shape[0] + 2, x : left + ink.shape[1] + 2].any():
        panel.put(ink, lit, left, top)


def _light_up(panel: Panel, lit: Ink, ghost: Ink, height: float, rng: np.random.Generator) -> None:
    """Give the levels of an LCD, whose shown segments are dark, or of an LED or a negative LCD."""
    # Strong ghosts beside nothing would look like faint digits.
    strongest = 0.25 if panel.marks else 0.07
    ghosts = (rng.uniform(0.02, strongest) if rng.random() < 0.6 else 0.0) * ghost * (1 - lit)
    kind = rng.random()
    if kind < 0.5:
        ground = rng.uniform(90, 240) if rng.random() < 0.85 else rng.uniform(45, 110)
        contrast = rng.uniform(0.45, 0.95) if rng.random() < 0.65 else rng.uniform(0.15, 0.45)
        shift = rng.uniform(-0.08, 0.08, 2) * height
        shadow = cv2.warpAffine(lit, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), lit.shape[::-1])
        shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.4, 0.02 * height)) * rng.uniform(0, 0.35)
        panel.levels = np.asarray(
            ground * (1 - contrast * np.maximum(np.maximum(lit, shadow), ghosts)), np.float32
        )
        return
    ground = rng.uniform(2, 70)
    peak = rng.uniform(max(90.0, ground + 50), 255)
    glow = np.zeros_like(lit)
    if kind < 0.85:
        for spread in (0.05, 0.25):
            glow += cv2.GaussianBlur(lit, (0, 0), spread * height) * rng.uniform(0, 0.45)
        # Bloom: a bright segment spreads over its gaps.
        lit = np.clip(cv2.GaussianBlur(lit, (0, 0), max(0.3, rng.uniform(0, 0.04) * height)) * 1.4, 0, 1)
    panel.levels = np.asarray(ground + (peak - ground) * np.clip(lit + glow + ghosts, 0, 1.15), np.float32)


def _frame(
    panel: Panel, box: tuple[float, float, float, float], height: float, rng: np.random.Generator
) -> None:
    """Put a bezel around the display, with an edge and a reflection in its glass, or scan lines over it."""
    rows, columns = panel.levels.shape
    left, top, right, bottom = box
    margins = rng.uniform(0.1, 0.7, 4) * height
    corner = max(0, int(left - margins[0])), max(0, int(top - margins[1]))
    end = int(right + margins[2]), int(bottom + margins[3])
    bezel = np.full((rows, columns), rng.uniform(5, 250), np.float32)
    bezel += rng.uniform(0, 8) * noise(bezel.shape, rng.uniform(1, 20), rng)
    cv2.rectangle(bezel, corner, end, rng.uniform(0, 255), int(rng.integers(1, 6)))
    window = slice(corner[1], end[1]), slice(corner[0], end[0])
    bezel[window] = panel.levels[window]
    panel.levels = bezel
    if rng.random() < 0.3:
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
        slope, width = rng.uniform(-1.5, 1.5), rng.uniform(5, 60)
        distance = (x + slope * y - rng.uniform(0, columns)) / width
        panel.levels = panel.levels + (rng.uniform(5, 60) * np.exp(-(distance**2))).astype(np.float32)
    if rng.random() < 0.1:
        panel.levels[:: int(rng.integers(2, 4))] *= rng.uniform(0.6, 0.95)


def _draw_wheels(panel: Panel, rng: np.random.Generator) -> None:
    """Draw a counter: wheels behind windows, the last ones of another colour, often between two digits."""
    rows, columns = panel.levels.shape
    height = float(np.exp(rng.triangular(*np.log((12, 40, MAX_HEIGHT)))))
    wheels = _Wheels.any(rng, height)
    panel.levels[:] = rng.uniform(10, 240) + rng.uniform(0, 8) * noise(
        (rows, columns), rng.uniform(1, 20), rng
    )
    top, left = int(rng.uniform(0, max(1, rows - wheels.window))), int(rng.uniform(0, 0.6) * height)
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
    def any(cls, rng: np.random.Generator, height: float) -> "_Wheels":
        """Return a random look."""
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
        size = self.window, self.width
        ink, wheel = (
            np.zeros(size, np.float32),
            Panel(np.zeros(size, np.float32), np.zeros(size, np.uint8), marks),
        )
        label = int(rng.integers(10))
        for step in (-1, 0, 1):
            digit = (label + step) % 10
            glyph = transform(draw_text(str(digit), (self.font,), rng), self.height, self.stretch, 0, 0)
            top = (self.window - glyph.shape[0]) / 2 + (step - phase) * self.pitch
            mark = Mark(digit, area_of(glyph), is_rolling=True)
            wheel.put(glyph, ink, (self.width - glyph.shape[1]) / 2, top, mark)
        across = np.abs(np.linspace(-1, 1, self.window, dtype=np.float32))[:, np.newaxis]
        levels = (self.ground + (self.pen - self.ground) * ink) * (1 - self.shade * across**3)
        wheel.levels = np.asarray(levels, np.float32)
        return wheel
