"""Pages: training data of the reader, drawn during its fit, with boxes and classes of digits and signs."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.reading.peaks import SIGN
from digit_training.detector import HEIGHTS
from digit_training.drawing.synthetic import draw_polyline
from digit_training.reader.displays import Panel, draw_panel
from digit_training.reader.handwriting import (
    SOURCES,
    GlyphBank,
    Ink,
    draw_sign,
    paste,
    pick,
    thicken,
    transform,
)
from digit_training.reader.surfaces import Sheet, capture, furnish, photograph

PAGE_SHAPE = (96, 192)
"""Height and width of a training page in pixels."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Cumulative shares, 0 to 1, of the kinds of pages, and shares of what is added to them."""

    lines: float = 0.54
    """Numbers in lines, which are what users read most."""
    alone: float = 0.67
    """A lone digit."""
    too_large: float = 0.71
    """Digits too large to be read at this scale."""
    sketches: float = 0.95
    """Sketches without a digit; the rest is empty."""
    added_sketch: float = 0.12
    """Share of the pages with readable digits that have a sketch beside them."""
    cut: float = 0.3
    """Share of pages that are cut, as photographs are."""
    empty_displays: float = 0.15
    """Share of the displays that show no digit."""
    close: float = 0.4
    """Share of the others that are cut closely around one digit, beside parts of its neighbours."""


_BOUNDS = _Bounds()

MIN_VISIBLE = 0.75
"""Least share of a digit inside the page; one that is cut off further is left out of the loss."""
DISPLAYS = 0.14
"""Share of pages that show a display or a counter."""
MIN_PART = 0.35
"""Least share of a digit that the loss leaves out in place of learning that it is none."""


@dataclass
class Page:
    """Grey page, uint8 [h, w], with its boxes, float32 [k, 4], and classes, int64 [k].

    A box is left, top, width and height in pixels. The loss ignores a box of the class -1.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class _Hand:
    """Properties that one writer's digits share."""

    height: float
    source: str
    constancy: float
    """Share of digits from the source; the others are from any."""
    pen: float
    """Width of the strokes of signs in pixels."""
    weight: float
    """Change of the width of strokes in pixels."""
    slant: float
    stretch: float
    size_spread: float
    gap: float
    """Gap between digits as a share of their height."""
    by_ink: bool
    """True if the gap is between strokes, not boxes."""
    touching: float
    """Share of neighbours that touch."""
    drift: float
    slope: float
    baseline: float
    word_share: float
    sign_share: float
    is_boxed: bool
    writes_bars: bool
    """True if 1s are plain bars."""

    @classmethod
    def any(cls, rng: np.random.Generator, height: float) -> "_Hand":
        """Return a random hand."""
        touching = (0.0, 0.25, 1.0)[int(rng.choice(3, p=(0.44, 0.36, 0.20)))]
        return cls(
            height=height,
            source=SOURCES[int(rng.choice(4, p=(0.38, 0.28, 0.24, 0.10)))],
            constancy=1.0 if rng.random() < 0.7 else 0.5,
            pen=max(1.0, height * rng.uniform(0.05, 0.14)),
            weight=float(rng.uniform(-0.025, 0.05) * height) if rng.random() < 0.4 else 0.0,
            # Some hands are upright, others are slanted.
            slant=float(rng.normal(0, 0.05 if rng.random() < 0.4 else 0.22)),
            stretch=float(np.exp(rng.normal(0, 0.14))),
            size_spread=float(rng.choice((0.04, 0.1, 0.2))),
            gap=float(np.exp(rng.uniform(*np.log((0.03, 0.5))))),
            by_ink=bool(rng.random() < 0.4),
            touching=touching,
            drift=float(rng.choice((0.02, 0.06, 0.12))),
            slope=float(rng.normal(0, 0.03) if rng.random() < 0.6 else rng.uniform(-0.2, 0.2)),
            baseline=float(rng.choice((0.5, 1.0))),
            word_share=0.35 if rng.random() < 0.35 else 0.0,
            sign_share=0.6 if rng.random() < 0.42 else 0.0,
            is_boxed=bool(rng.random() < 0.12),
            writes_bars=bool(rng.random() < 0.4),
        )


@dataclass
class _Writing:
    """Ink on a page, and the boxes and classes of its digits and signs so far."""

    bank: GlyphBank
    rng: np.random.Generator
    ink: Ink = field(default_factory=lambda: np.zeros(PAGE_SHAPE, np.float32))
    sheet: Sheet = field(default_factory=lambda: Sheet(np.zeros(PAGE_SHAPE, np.float32)))
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    def put(self, ink: Ink, left: float, top: float, label: int | None) -> None:
        """Put ink at a place, which may lie outside in part; with a label, note its box."""
        pasted = paste(ink, self.ink, left, top)
        if not pasted or label is None:
            return
        (rows, columns), part = pasted
        is_visible = ink[part].size >= MIN_VISIBLE * ink.size
        self.boxes.append((columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start))
        self.classes.append(label if is_visible else -1)

    def photograph(self, *, is_written: bool) -> Page:
        """Return the page of what is written on the sheet, which is furnished first."""
        furnish(self.sheet, self.rng, is_written=is_written)
        pixels = photograph(self.ink, self.sheet, self.rng)
        boxes = np.array(self.boxes, np.float32).reshape(-1, 4)
        return Page(pixels, boxes, np.array(self.classes, np.int64))

    def write_lines(self) -> None:
        rows, columns = PAGE_SHAPE
        # Large digits count as much as small ones, of which a page holds more.
        height = float(np.exp(self.rng.triangular(*np.log((12, 48, 60)))))
        top = self.rng.uniform(-0.1, 0.5) * height
        pitch = height * self.rng.uniform(1.15, 2.2)
        lines = 1 if self.rng.random() < 0.4 else 5
        if lines == 1:
            top = self.rng.uniform(0, max(1.0, rows - height))
        hand = _Hand.any(self.rng, height)
        while lines and top < rows - 0.8 * height:
            if hand.is_boxed:
                self._write_cells(hand, top)
            else:
                self._write_line(hand, self.rng.uniform(-0.6, 1.2) * height, top, columns)
            top += pitch
            lines -= 1

    def _write_line(self, hand: _Hand, left: float, top: float, end: float) -> None:
        """Write numbers, signs and words from left to right until the line ends."""
        slope = hand.slope
        start = left
        if self.rng.random() < hand.word_share:
            left = self._write_word(hand, left, top)
        while left < end:
            for text in self._number(hand):
                if left > end:
                    break
                rise = top - slope * (left - start) + hand.height * self.rng.normal(0, hand.drift)
                if text.isdigit():
                    ink = self._glyph(int(text), hand)
                    tall = ink.shape[0]
                    # Digits stand on the line, or are centred on it.
                    y = rise + (hand.height - tall) * hand.baseline
                    left = self._advance(ink, left, y, hand)
                    self.put(ink, left, y, int(text))
                else:
                    ink, offset = draw_sign(text, hand.height, hand.pen, self.rng)
                    left += hand.height * self.rng.uniform(0.0, 0.15)
                    self.put(ink, left, rise + offset * hand.height, SIGN)
                    left += hand.height * self.rng.uniform(0.0, 0.15)
                left += ink.shape[1]
            left += hand.height * self.rng.uniform(0.5, 2)
            if self.rng.random() < hand.word_share:
                left = self._write_word(hand, left, top)
            if self.rng.random() < 0.25:
                break

    def _advance(self, ink: Ink, left: float, y: float, hand: _Hand) -> float:
        """Return where the next digit begins: after a gap, or inside the previous digit if the two touch."""
        if not self.boxes:
            return left
        if self.rng.random() < hand.touching:
            return _touch(self.ink, ink, left, y) - self.rng.uniform(0, 0.09) * hand.height - 0.5
        gap = hand.height * max(0.0, self.rng.normal(hand.gap, 0.3 * hand.gap))
        if hand.by_ink:
            return _touch(self.ink, ink, left, y) + max(1.0, gap)
        return left + max(1.0, gap)

    def _number(self, hand: _Hand) -> list[str]:
        """Return the digits and signs of a number, a date, a time or an amount."""
        kind = self.rng.random()
        if kind < hand.sign_share:
            form = pick(("dd/dd/dddd", "d/d/dd", "dd.dd.dddd", "d,ddd", "dd,dd", "ddd.dd", "d.d", "dd:dd",
                         "ddd-dddd", "dd-dd-dd", "$ddd", "£dd.dd", "€d,dd", "d,ddd.dd", "d/dd", "-dd",
                         "#ddd.dd", "ddd/dd", "#dd.dd#", "d.ddd-"), self.rng)  # fmt: skip
            return [_digit(self.rng) if sign == "d" else sign for sign in form]
        count = int(self.rng.integers(2, 7)) if self.rng.random() < 0.8 else int(self.rng.integers(1, 12))
        if self.rng.random() < 0.08:
            return [_digit(self.rng) if self.rng.random() < 0.5 else "0"] * count
        return [_digit(self.rng) for _ in range(count)]

    def _glyph(self, label: int, hand: _Hand) -> Ink:
        source = hand.source if self.rng.random() < hand.constancy else pick(SOURCES[:3], self.rng)
        height = hand.height * np.exp(self.rng.normal(0, hand.size_spread))
        is_bar = label == 1 and hand.writes_bars
        ink = transform(
            self.bank.bar(self.rng) if is_bar else self.bank.take(source, label, self.rng),
            max(6.0, height),
            hand.stretch * np.exp(self.rng.normal(0, 0.06)),
            hand.slant + self.rng.normal(0, 0.04),
            self.rng.normal(-np.arctan(hand.slope), 0.05),
        )
        return thicken(ink, hand.weight) if abs(hand.weight) > 0.2 else ink

    def _write_cells(self, hand: _Hand, top: float) -> None:
        """Write into a row of boxes, one digit each, some empty."""
        height, width = hand.height * self.rng.uniform(1.2, 1.7), hand.height * self.rng.uniform(1.0, 1.5)
        apart = hand.height * self.rng.uniform(0.1, 0.5) if self.rng.random() < 0.4 else 0.0
        thickness = 1 if hand.height < 24 else int(self.rng.integers(1, 4))
        is_comb = apart == 0 and self.rng.random() < 0.3
        left, cells = self.rng.uniform(-width, width), int(self.rng.integers(2, 12))
        for _ in range(cells):
            box = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
            corners = np.array(
                [*box[1:], box[0], box[1]] if not is_comb else [box[0], box[3], box[2], box[1]]
            )
            draw_polyline(self.sheet.printed, corners, thickness)
            if self.rng.random() < 0.8:
                label = int(self.rng.integers(10))
                ink = self._glyph(label, hand)
                y = top + (height - ink.shape[0]) * self.rng.uniform(0.15, 0.85)
                self.put(ink, left + (width - ink.shape[1]) * self.rng.uniform(0.1, 0.9), y, label)
            left += width + apart

    def _write_word(self, hand: _Hand, left: float, top: float) -> float:
        """Write a word beside numbers, about as high, and return where it ends."""
        word = transform(
            self.bank.word(self.rng), hand.height * self.rng.uniform(0.6, 1.1), 1, hand.slant / 2, 0
        )
        self.put(word, left, top + (hand.height - word.shape[0]) * self.rng.uniform(0.4, 1), None)
        return float(left + word.shape[1] + hand.height * self.rng.uniform(0.4, 1))

    def write_alone(self) -> None:
        """Write one digit, of any size that the reader finds, anywhere."""
        height = float(np.exp(self.rng.uniform(*np.log((12, 80)))))
        hand = _Hand.any(self.rng, height)
        label = int(self.rng.integers(10))
        ink = self._glyph(label, hand)
        rows, columns = PAGE_SHAPE
        left = self.rng.uniform(min(0, columns - ink.shape[1]), max(1, columns - ink.shape[1]))
        top = self.rng.uniform(min(0, rows - ink.shape[0]), max(1, rows - ink.shape[0]))
        self.put(ink, left, top, label if HEIGHTS[0] <= ink.shape[0] <= HEIGHTS[1] else -1)
        kind = self.rng.random()
        if kind < 0.3:
            self._encircle(ink, left, top)
        elif kind < 0.45:
            self._write_word(hand, left + ink.shape[1] + self.rng.uniform(0.15, 1.5) * height, top)

    def _encircle(self, ink: Ink, left: float, top: float) -> None:
        """Draw a circle or a box around a digit, or a line under it, by the same pen."""
        rows, columns = ink.shape
        middle = int(left + columns / 2), int(top + rows / 2)
        pen = max(1, round(rows * self.rng.uniform(0.04, 0.1)))
        kind = self.rng.random()
        if kind < 0.5:
            axes = (
                int(columns / 2 + rows * self.rng.uniform(0.2, 0.5)),
                int(rows * self.rng.uniform(0.65, 0.95)),
            )
            turn = self.rng.uniform(-20, 20)
            cv2.ellipse(self.ink, middle, axes, turn, 0, self.rng.uniform(330, 380), 1.0, pen, cv2.LINE_AA)
        elif kind < 0.75:
            margin = int(rows * self.rng.uniform(0.15, 0.5))
            corner = int(left) - margin, int(top) - margin
            end = int(left) + columns + margin, int(top) + rows + margin
            cv2.rectangle(self.ink, corner, end, 1.0, pen, cv2.LINE_AA)
        else:
            y = int(top + rows * self.rng.uniform(1.05, 1.4))
            overhang = int(rows * self.rng.uniform(0.1, 0.8))
            start, end = (
                (int(left) - overhang, y),
                (int(left) + columns + overhang, y + int(self.rng.normal(0, 2))),
            )
            cv2.line(self.ink, start, end, 1.0, pen, cv2.LINE_AA)

    def write_too_large(self) -> None:
        """Write strokes of digits that belong to a coarser level of the pyramid."""
        rows, columns = PAGE_SHAPE
        for _ in range(int(self.rng.integers(1, 3))):
            height = self.rng.uniform(110, 300)
            ink = self._glyph(int(self.rng.integers(10)), _Hand.any(self.rng, height))
            # A 1 is a stroke, and its middle looks like the whole of a smaller one.
            left, top = (
                self.rng.uniform(-ink.shape[1], columns),
                self.rng.uniform(-0.8 * height, rows - 0.2 * height),
            )
            self.put(ink, left, top, None)

    def sketch(self) -> None:
        """Draw words in lines, or letters, scribbles, symbols, doodles and shapes: no digit."""
        if self.rng.random() < 0.5:
            self._write_words()
        else:
            self.add_sketch(int(self.rng.integers(2, 9)))

    def _write_words(self) -> None:
        height = float(np.exp(self.rng.uniform(*np.log((9, 48)))))
        hand = _Hand.any(self.rng, height)
        top = self.rng.uniform(-0.5, 0.5) * height
        while top < PAGE_SHAPE[0]:
            left = self.rng.uniform(-2, 1) * height
            while left < PAGE_SHAPE[1]:
                left = self._write_word(hand, left, top)
            top += height * self.rng.uniform(1.2, 2)

    def add_sketch(self, count: int) -> None:
        for _ in range(count):
            sketch = self.bank.sketch(self.rng)
            # Bound the width by about that of the page: a drawing may be a line.
            most = 300 * sketch.shape[0] / sketch.shape[1]
            # Parts of large drawings resemble digits, too.
            height = min(float(np.exp(self.rng.uniform(*np.log((10, 220))))), most)
            ink = transform(sketch, height, np.exp(self.rng.normal(0, 0.1)), self.rng.normal(0, 0.1), 0)
            left, top = self.rng.uniform(-0.3, 1.0, 2) * (PAGE_SHAPE[1], PAGE_SHAPE[0])
            if not self.boxes or not self._covers(ink, left, top):
                self.put(ink, left, top, None)

    def _covers(self, ink: Ink, left: float, top: float) -> bool:
        """True if the ink's box overlaps that of a digit."""
        height, width = ink.shape
        return any(
            left < x + w and x < left + width and top < y + h and y < top + height
            for x, y, w, h in self.boxes
        )


class PageWriter:
    """Draws pages with the glyphs of a bank, of which the share `displays` shows displays or counters."""

    def __init__(self, bank: GlyphBank, displays: float = DISPLAYS) -> None:
        self._bank = bank
        self._displays = displays

    def draw(self, rng: np.random.Generator) -> Page:
        """Return a random page: of numbers, a lone digit, too large digits, a display, or without a digit."""
        if rng.random() < self._displays:
            return self.draw_display(rng, shows_digits=rng.random() >= _BOUNDS.empty_displays)
        writing = _Writing(self._bank, rng)
        kind = rng.random()
        if kind < _BOUNDS.lines:
            writing.write_lines()
        elif kind < _BOUNDS.alone:
            writing.write_alone()
        elif kind < _BOUNDS.too_large:
            writing.write_too_large()
        elif kind < _BOUNDS.sketches:
            writing.sketch()
        if rng.random() < _BOUNDS.added_sketch and kind < _BOUNDS.alone:
            writing.add_sketch(1)
        page = writing.photograph(is_written=kind < _BOUNDS.sketches)
        return _cut(page, rng) if rng.random() < _BOUNDS.cut else page

    def draw_display(self, rng: np.random.Generator, *, shows_digits: bool) -> Page:
        """Return a random page of a display or a counter, often cut closely around one digit."""
        panel = draw_panel(self._bank, PAGE_SHAPE, rng, shows_digits=shows_digits)
        if panel.marks and rng.random() < _BOUNDS.close:
            _cut_closely(panel, rng)
        return _label(panel, capture(panel.levels, rng, is_photo=rng.random() < 0.7))

    def draw_sketches(self, rng: np.random.Generator) -> Page:
        """Return a random page of sketches, a display or a scene, without letters that equal digits."""
        if rng.random() < self._displays:
            return self.draw_display(rng, shows_digits=False)
        writing = _Writing(self._bank, rng)
        is_written = rng.random() < 0.8
        if is_written:
            writing.add_sketch(int(rng.integers(2, 9)))
        return writing.photograph(is_written=is_written)


def _cut(page: Page, rng: np.random.Generator) -> Page:
    """Cut the page closely around what is written, and pad the rest with the mean, as in serving."""
    rows, columns = page.pixels.shape
    if not len(page.boxes) or (page.classes < 0).any():
        return page
    low, high = page.boxes[:, :2].min(axis=0), (page.boxes[:, :2] + page.boxes[:, 2:]).max(axis=0)
    # Ink often touches the edge of a picture, or leaves it.
    margins = np.where(rng.random(4) < 0.4, rng.uniform(-0.05, 0.02, 4), rng.uniform(0, 0.3, 4))
    margins *= float(page.boxes[:, 3].max())
    left, top = (max(0, int(value)) for value in low - margins[:2])
    right, bottom = min(columns, int(high[0] + margins[2]) + 1), min(rows, int(high[1] + margins[3]) + 1)
    part = page.pixels[top:bottom, left:right]
    pixels = np.full_like(page.pixels, round(float(part.mean())))
    pixels[: bottom - top, : right - left] = part
    corners = np.concatenate((page.boxes[:, :2], page.boxes[:, :2] + page.boxes[:, 2:]), axis=1)
    corners = np.clip(corners - np.array([left, top] * 2, np.float32), 0, [right - left, bottom - top] * 2)
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1).astype(np.float32)
    return Page(pixels, boxes, page.classes)


def _cut_closely(panel: Panel, rng: np.random.Generator) -> None:
    """Cut the panel around one digit, which then fills most of it, and pad the rest with the mean."""
    mark = int(rng.integers(len(panel.marks))) + 1
    left, top, width, height = cv2.boundingRect((panel.owner == mark).astype(np.uint8))
    if height < HEIGHTS[0]:
        return
    margins = rng.uniform(-0.04, 0.3, 4) * height
    # A narrow digit leaves more room at its sides.
    margins[[0, 2]] += max(0.0, 0.45 * height - width) * rng.uniform(0, 1, 2)
    rows = slice(max(0, int(top - margins[1])), int(top + height + margins[3]) + 1)
    columns = slice(max(0, int(left - margins[0])), int(left + width + margins[2]) + 1)
    levels, owner = panel.levels[rows, columns], panel.owner[rows, columns]
    panel.levels, panel.owner = np.full_like(panel.levels, levels.mean()), np.zeros_like(panel.owner)
    panel.levels[: levels.shape[0], : levels.shape[1]] = levels
    panel.owner[: owner.shape[0], : owner.shape[1]] = owner


def _label(panel: Panel, pixels: NDArray[np.uint8]) -> Page:
    """Return the page with the boxes of what a panel shows, from half a digit on for a rolling wheel."""
    boxes, classes = [], []
    for index, mark in enumerate(panel.marks, 1):
        own = (panel.owner == index).astype(np.uint8)
        share = cv2.countNonZero(own) / max(1, mark.area)
        if share < MIN_PART:
            continue
        box = cv2.boundingRect(own)
        is_visible = share >= (0.5 if panel.is_counter else MIN_VISIBLE)
        is_readable = mark.label == SIGN or HEIGHTS[0] <= box[3] <= HEIGHTS[1]
        boxes.append(box)
        classes.append(mark.label if is_visible and is_readable else -1)
    # The loss ignores boxes of the class -1 before it learns the others.
    order = np.argsort(np.array(classes, np.int64) >= 0, kind="stable")
    return Page(pixels, np.array(boxes, np.float32).reshape(-1, 4)[order], np.array(classes, np.int64)[order])


def _digit(rng: np.random.Generator) -> str:
    return str(int(rng.integers(10)))


def _touch(page: Ink, ink: Ink, left: float, top: float) -> float:
    """Return the left edge at which the ink just touches what is written before `left` on its rows."""
    y = round(top)
    rows = slice(max(0, y), max(0, min(page.shape[0], y + ink.shape[0])))
    x = min(round(left), page.shape[1])
    begin = max(0, x - 60)
    before = page[rows, begin:x] > 0.3
    after = ink[rows.start - y : rows.stop - y] > 0.3
    if not before.size or not before.any() or not after.any():
        return left
    ends = np.where(before.any(axis=1), before.shape[1] - before[:, ::-1].argmax(axis=1), -10_000)
    starts = np.where(after.any(axis=1), after.argmax(axis=1), 10_000)
    # Strokes of neighbouring rows touch, too.
    near = np.maximum(ends, np.maximum(np.append(ends[1:], -10_000), np.append(-10_000, ends[:-1])))
    reach = int((near - starts).max())
    # A digit moves into the one before by at most half of its own width.
    return float(max(begin + reach, left - 0.5 * ink.shape[1])) if reach > -5000 else left
