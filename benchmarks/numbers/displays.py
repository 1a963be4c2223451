"""Families of displays and counters, and of pictures that are cut closely around one of their digits.

The segments are the cells of a Voronoi diagram of their middle lines, the wheels are cylinders, and the
digits on them are Hershey's: none of this is drawn in training.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.handwriting import files, paper
from benchmarks.handwriting.pen import Ink
from benchmarks.numbers.surfaces import pick
from benchmarks.numbers.writing import Digits, number

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

_SEGMENTS = ["0010", "1011", "1112", "0212", "0102", "0001", "0111"]
"""Ends of the segments a to g: x and y of both, of which the middle row is 1."""
_LIT = {
    "0": "abcdef", "1": "bc", "2": "abdeg", "3": "abcdg", "4": "bcfg", "5": "acdfg", "6": "acdefg",
    "7": "abc", "8": "abcdefg", "9": "abcdfg", "A": "abcefg", "C": "adef", "E": "adefg", "F": "aefg",
    "H": "bcefg", "L": "def", "P": "abefg", "U": "bcdef", "r": "eg", "n": "ceg", "t": "defg",
}  # fmt: skip
_WORDS = ["Err", "HELP", "FULL", "CAL", "LEAP", "HALt", "rEF", "CAFE", "PAUCE", "CHArE", "LAP", "nEt"]
_LCDS = [(150, 165, 130), (196, 205, 190), (120, 140, 115), (205, 200, 180), (160, 185, 205)]
_LEDS = [(255, 40, 30), (60, 255, 90), (255, 170, 30), (70, 130, 255), (240, 245, 255)]
_CASES = [(40, 42, 45), (225, 225, 220), (120, 125, 130), (70, 75, 110)]


@dataclass(frozen=True)
class Shown:
    """Picture of a panel before it is photographed, RGB float32 [h, w, 3]; its digits' boxes and its text."""

    picture: paper.Picture
    boxes: list[Box]
    text: str


def lcd(_: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Dark segments on grey or green, often with ghosts of the others and a shadow, or light on dark blue."""
    return _photograph(_show_lcd(number(rng, 3, 7), rng), rng)


def led(_: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Glowing segments on black."""
    return _photograph(_show_led(number(rng, 3, 6), rng), rng)


def scoreboards(_: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Segments of single lamps."""
    return _photograph(_show_lamps(number(rng, 2, 4), rng), rng)


def wheels(_: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A mechanical counter, whose last wheel is often red and between two digits."""
    return _photograph(_show_wheels(number(rng, 4, 7), rng), rng)


def close_segments(_: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """One digit of an LCD, an LED or a scoreboard, which fills most of its picture."""
    return _cut(pick([_show_lcd, _show_lcd, _show_led, _show_lamps], rng)(number(rng, 3, 5), rng), rng)


def close_wheels(_: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """One digit of a counter, which fills most of its picture, beside parts of its neighbours."""
    return _cut(_show_wheels(number(rng, 3, 5), rng), rng)


def words_on_displays(rng: np.random.Generator) -> tuple[bytes, None]:
    """Words on an LCD or an LED, without letters that equal digits, or nothing but ghosts."""
    return _photograph(pick([_show_lcd, _show_led], rng)(pick(_WORDS, rng), rng), rng)[0], None


DISPLAYS: dict[str, Callable[[Digits, np.random.Generator], tuple[bytes, str]]] = {
    "lcd": lcd,
    "led": led,
    "scoreboards": scoreboards,
    "wheels": wheels,
}
CLOSE_CROPS = {"close segments": close_segments, "close wheels": close_wheels}
WORDS = {"words on displays": words_on_displays}


def _show_lcd(text: str, rng: np.random.Generator) -> Shown:
    lit, ghosts, boxes = _write(text, rng)
    if rng.random() < 0.25:
        ground, pen = (rng.uniform(10, 40), rng.uniform(30, 70), rng.uniform(90, 170)), (230, 240, 250)
    else:
        ground, pen = pick(_LCDS, rng), (35, 40, 40)
    picture = paper.sheet(lit.shape[0], lit.shape[1], ground)
    if rng.random() < 0.6:
        picture = paper.draw(picture, ghosts * np.float32(rng.uniform(0.03, 0.18)), pen)
    if rng.random() < 0.5:
        moved = np.roll(lit, (int(rng.integers(1, 4)), int(rng.integers(-3, 4))), (0, 1))
        picture = paper.draw(picture, cv2.GaussianBlur(moved, (0, 0), 1.5) * np.float32(0.25), pen)
    return Shown(paper.draw(picture, lit * np.float32(rng.uniform(0.4, 0.95)), pen), boxes, text)


def _show_led(text: str, rng: np.random.Generator) -> Shown:
    lit, ghosts, boxes = _write(text, rng)
    return Shown(_glow(lit, ghosts, rng), boxes, text)


def _show_lamps(text: str, rng: np.random.Generator) -> Shown:
    lit, ghosts, boxes = _write(text, rng, lamps=int(rng.integers(3, 6)))
    return Shown(_glow(lit, ghosts, rng), boxes, text)


def _glow(lit: Ink, ghosts: Ink, rng: np.random.Generator) -> paper.Picture:
    level = rng.uniform(5, 45)
    picture = paper.sheet(lit.shape[0], lit.shape[1], (level, level, level))
    colour = np.array(pick(_LEDS, rng), np.float32)
    picture = paper.draw(picture, ghosts * np.float32(rng.uniform(0, 0.12)), (150, 150, 150))
    spread = cv2.GaussianBlur(lit, (0, 0), lit.shape[0] * rng.uniform(0.01, 0.05))
    light = lit + rng.uniform(0, 0.6) * spread
    return np.asarray(np.minimum(picture + light[:, :, None] * colour, 255), np.float32)


def _write(text: str, rng: np.random.Generator, lamps: int = 0) -> tuple[Ink, Ink, list[Box]]:
    """Write characters of segments, or of `lamps` on each; return them, all segments, and the boxes."""
    height = float(np.exp(rng.uniform(np.log(32), np.log(120))))
    wide, middle = height * rng.uniform(0.42, 0.62), height * rng.uniform(0.46, 0.54)
    thick, gap = height * rng.uniform(0.09, 0.15), rng.uniform(0, 0.03) * height
    slant = pick([0.0, 0.09, 0.14], rng)
    pitch = wide + thick + height * rng.uniform(0.1, 0.35)
    margins = (height * rng.uniform(0.2, 0.7, 4)).astype(int).tolist()
    blanks = int(rng.integers(0, 3)) if rng.random() < 0.3 else 0
    point = int(rng.integers(len(text))) if rng.random() < 0.4 else -1
    left, top = margins[0] + slant * height + thick / 2, margins[1] + thick / 2
    shape = (
        int(height + 2 * top),
        int(left + pitch * (len(text) + blanks) + slant * height + margins[2]),
    )
    lit, ghosts, boxes = np.zeros(shape, np.float32), np.zeros(shape, np.float32), []
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    x = x + slant * (y - top - height / 2)
    for cell in range(blanks + len(text)):
        start = left + cell * pitch
        places = [
            [
                (start + wide * int(end[0]), top + (0, middle, height)[int(end[1])])
                for end in (line[:2], line[2:])
            ]
            for line in _SEGMENTS
        ]
        distances = np.stack([_distance(x, y, place, lamps) for place in places])
        near, second = np.partition(distances, 1, axis=0)[:2]
        ink = np.clip(thick / 2 - near + 0.5, 0, 1)
        if not lamps:
            ink *= np.clip(second - near - gap + 0.5, 0, 1)
        np.maximum(ghosts, ink, out=ghosts)
        if cell < blanks:
            continue
        shown = _LIT[text[cell - blanks]]
        ink = ink * np.isin(distances.argmin(axis=0), ["abcdefg".index(name) for name in shown])
        boxes.append(cv2.boundingRect((ink > 0.5).astype(np.uint8)))
        np.maximum(lit, ink, out=lit)
        if cell - blanks == point and text.isdigit():
            place = round(start + wide + pitch / 2 - wide / 2), round(top + height)
            cv2.circle(lit, place, max(1, round(thick * 0.45)), 1.0, -1)
    return lit.astype(np.float32), ghosts.astype(np.float32), boxes


def _distance(x: Ink, y: Ink, ends: list[tuple[float, float]], lamps: int) -> Ink:
    """Return the distance of each pixel from a line, or from the nearest of the lamps on it."""
    (x0, y0), (x1, y1) = ends
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    along = np.clip(along, 0, 1)
    if lamps:
        along = np.round(along * lamps) / lamps
    return np.asarray(np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)), np.float32)


def _show_wheels(text: str, rng: np.random.Generator) -> Shown:
    height = int(np.exp(rng.uniform(np.log(30), np.log(100))))
    radius, wide = height * rng.uniform(1.5, 2.2), round(height * rng.uniform(0.75, 1.1))
    window, apart = round(height * rng.uniform(1.1, 1.6)), round(height * rng.uniform(0, 0.3))
    font, weight = pick([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX], rng), rng.uniform(0.06, 0.14)
    step = height * rng.uniform(1.2, 1.5)
    dark, light = (25, 25, 28), (225, 225, 220)
    ground, pen = (dark, light) if rng.random() < 0.65 else (light, dark)
    margin = round(height * rng.uniform(0.15, 0.6))
    picture = paper.sheet(
        window + 2 * margin, len(text) * (wide + apart) - apart + 2 * margin, pick(_CASES, rng)
    )
    boxes = []
    for cell, character in enumerate(text):
        is_last = cell == len(text) - 1
        # From half a turn on, the lower digit is read; nobody can tell near the half.
        phase = rng.uniform(-0.38, 0.38) if is_last and rng.random() < 0.5 else rng.normal(0, 0.03)
        strip = np.zeros((round(4 * step), wide), np.float32)
        for row in range(4):
            _print(strip, str((int(character) + row - 2) % 10), (row + 0.5) * step, height, font, weight)
        y = np.arange(window, dtype=np.float32) - window / 2
        rows = 2.5 * step + phase * step + radius * np.arcsin(np.clip(y / radius, -1, 1))
        columns, lines = np.meshgrid(np.arange(wide, dtype=np.float32), rows.astype(np.float32))
        ink = cv2.remap(strip, columns, lines, cv2.INTER_LINEAR)
        colours = ((170, 30, 30), light) if is_last and rng.random() < 0.5 else (ground, pen)
        wheel = paper.draw(paper.sheet(window, wide, colours[0]), ink, colours[1])
        wheel *= (np.sqrt(1 - np.square(y / radius)) ** rng.uniform(0.3, 2))[:, None, None]
        left = margin + cell * (wide + apart)
        picture[margin : margin + window, left : left + wide] = wheel
        top = margin + window / 2 - phase * step - height / 2
        first, last = max(margin, round(top)), min(margin + window, round(top + height))
        boxes.append((left, first, wide, last - first))
    return Shown(picture, boxes, text)


def _print(strip: Ink, digit: str, middle: float, height: int, font: int, weight: float) -> None:
    """Print a digit of Hershey's fonts in the middle of the strip."""
    thick = max(1, round(height * weight))
    scale = cv2.getFontScaleFromHeight(font, height - thick, thick)
    (width, tall), _ = cv2.getTextSize(digit, font, scale, thick)
    pixels = np.zeros(strip.shape, np.uint8)
    place = (strip.shape[1] - width) // 2, round(middle + tall / 2)
    cv2.putText(pixels, digit, place, font, scale, 255, thick, cv2.LINE_AA)
    np.maximum(strip, pixels.astype(np.float32) / 255, out=strip)


def _photograph(shown: Shown, rng: np.random.Generator) -> tuple[bytes, str]:
    """Put the panel in its case, turned by up to eight degrees, and photograph it."""
    rows, columns = shown.picture.shape[:2]
    pad = (rng.uniform(0, 0.8, 4) * rows).astype(int).tolist()
    height, width = rows + pad[0] + pad[1], columns + pad[2] + pad[3]
    case = paper.sheet(height, width, pick(_CASES, rng))
    case += 3 * paper.texture(height, width, 4, rng)[:, :, None]
    angle = np.deg2rad(rng.uniform(-8, 8) if rng.random() < 0.4 else rng.uniform(-2, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    to_middle = np.array([[1, 0, -columns / 2], [0, 1, -rows / 2], [0, 0, 1]])
    back = np.array([[1, 0, pad[2] + columns / 2], [0, 1, pad[0] + rows / 2], [0, 0, 1]])
    picture = paper.project(shown.picture, case, back @ turn @ to_middle)
    if rng.random() < 0.25:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        distance = (x + rng.uniform(-1, 1) * y - rng.uniform(0, width)) / (0.1 * width)
        picture = picture + rng.uniform(10, 50) * np.exp(-np.square(distance))[:, :, None]
    pixels = paper.camera(np.asarray(paper.illuminate(picture, rng), np.float32), rng)
    return files.jpeg(pixels, rng), shown.text


def _cut(shown: Shown, rng: np.random.Generator) -> tuple[bytes, str]:
    """Cut the picture around one digit, which fills it by 70 to 100 %, and reduce it to 32 to 112 pixels."""
    index = int(rng.integers(len(shown.boxes)))
    left, top, width, height = shown.boxes[index]
    margins = height * rng.uniform(-0.03, 0.2, 4)
    # A 1 is narrow, and its cell is not.
    margins[:2] += max(0.0, 0.5 * height - width) * rng.uniform(0, 1)
    rows = slice(max(0, round(top - margins[2])), round(top + height + margins[3]))
    columns = slice(max(0, round(left - margins[0])), round(left + width + margins[1]))
    part = shown.picture[rows, columns]
    scale = min(1.0, np.exp(rng.uniform(np.log(32), np.log(112))) / part.shape[0])
    part = cv2.resize(part, (0, 0), fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pixels = paper.camera(np.asarray(paper.illuminate(part, rng), np.float32), rng)
    return files.jpeg(pixels, rng), shown.text[index]
