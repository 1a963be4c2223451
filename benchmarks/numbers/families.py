"""Families of numbers and of lone digits: each function returns a picture's file and the text on it."""

import zlib
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.handwriting.pen import Ink, encircle, rotate, trim, underline
from benchmarks.numbers import surfaces
from benchmarks.numbers.fonts import any_font, print_text
from benchmarks.numbers.surfaces import anywhere, margins, on_paper, pick
from benchmarks.numbers.writing import (
    Digits,
    Pen,
    any_pen,
    arc,
    line,
    number,
    row,
    shear,
    sketch,
    stack,
    write,
)

Family = Callable[[Digits, np.random.Generator], tuple[bytes, str]]

_LABELS = ["Name", "Punkte", "Rank", "Week", "Team", "Year", "Track", "Part", "Nr.", "Kan", "Tax", "Fee"]


def generator(seed: int, family: str, number: int) -> np.random.Generator:
    """Return the random numbers of a family's picture."""
    return np.random.default_rng([seed, zlib.crc32(family.encode()), number])


def spaced(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Digits with clear gaps."""
    text, pen = number(rng), any_pen(rng)
    ink = _write_row(text, digits, pen, rng, gaps=(0.12, 0.5))
    return anywhere(margins(ink, pen.height, rng), None, rng), text


def tight(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Gaps of 2 to 8 % of the height, between the digits' boxes or between their strokes."""
    text, pen = number(rng), any_pen(rng, 40)
    ink = _write_row(text, digits, pen, rng, gaps=(0.02, 0.08), by_ink=rng.random() < 0.5)
    return anywhere(margins(ink, pen.height, rng), None, rng), text


def touching(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """The strokes of one pair touch or overlap, by up to 1.8 pixels of a digit 20 pixels high."""
    text, pen = number(rng), any_pen(rng)
    inks = write(text, digits, pen, rng)
    gaps = [pen.height * gap for gap in rng.uniform(0.06, 0.25, len(inks) - 1)]
    gaps[int(rng.integers(len(gaps)))] = -pen.height * rng.uniform(0, 1.8) / 20
    return anywhere(margins(row(inks, gaps, by_ink=True), pen.height, rng), None, rng), text


def slanted(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A baseline that rises or falls by up to ten degrees, and slanted writing."""
    text, pen = number(rng), any_pen(rng)
    ink = shear(_write_row(text, digits, pen, rng, gaps=(0.1, 0.35)), rng.uniform(-10, 25))
    ink = rotate(ink, rng.choice([-1, 1]) * rng.uniform(3, 10))
    return anywhere(margins(ink, pen.height, rng), None, rng), text


def sizes(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Heights that vary by a factor of 1.6, and an uneven baseline."""
    text, pen = number(rng), any_pen(rng, spread=1.6)
    inks = write(text, digits, pen, rng)
    gaps = pen.height * rng.uniform(0.1, 0.35, len(inks) - 1)
    ink = row(inks, gaps.tolist(), rises=(pen.height * rng.uniform(-0.12, 0.12, len(inks))).tolist())
    return anywhere(margins(ink, pen.height, rng), None, rng), text


def long(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Eight to twelve digits, sometimes in groups."""
    text, pen = number(rng, 8, 12), any_pen(rng, high=80)
    inks = write(text, digits, pen, rng)
    gaps = pen.height * rng.uniform(0.08, 0.3, len(inks) - 1)
    if rng.random() < 0.4:
        gaps[2::3] += pen.height * rng.uniform(0.4, 0.7)
    return anywhere(margins(row(inks, gaps.tolist()), pen.height, rng), None, rng), text


def two_lines(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Two numbers, one below the other."""
    texts, pen = [number(rng), number(rng)], any_pen(rng)
    rows = [_write_row(text, digits, pen, rng, gaps=(0.1, 0.35)) for text in texts]
    ink = rotate(stack(rows, pen.height * rng.uniform(0.25, 1), rng), rng.uniform(-2, 2))
    return anywhere(margins(ink, pen.height, rng), None, rng), "\n".join(texts)


def boxes(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A row of printed cells, one digit each, some empty."""
    text, pen = number(rng), any_pen(rng, 30, 80)
    cells = len(text) + int(rng.integers(0, 3))
    filled = np.sort(rng.choice(cells, len(text), replace=False))
    height, width = int(pen.height * rng.uniform(1.35, 1.8)), int(pen.height * rng.uniform(1.2, 1.6))
    apart = int(pen.height * rng.uniform(0.1, 0.4)) if rng.random() < 0.4 else 0
    ink = np.zeros((height, cells * (width + apart) - apart + 1), np.float32)
    for cell, drawn in zip(filled, write(text, digits, pen, rng), strict=True):
        drawn = _within(drawn, height - 6, width - 6)
        free = height - drawn.shape[0], width - drawn.shape[1]
        top, left = (round(length * rng.uniform(0.25, 0.75)) for length in free)
        left += int(cell) * (width + apart)
        ink[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    printed, thickness = np.zeros_like(ink), int(rng.integers(1, 4))
    comb = apart == 0 and rng.random() < 0.25
    for left in range(0, ink.shape[1] - 1, width + apart):
        corners = (left, 0), (left + width, height - 1)
        if comb:
            cv2.line(printed, (left, height // 2), (left, height - 1), 1, thickness)
            cv2.line(printed, (left, height - 1), (left + width, height - 1), 1, thickness)
        else:
            cv2.rectangle(printed, *corners, 1, thickness)
    pad = int(pen.height * rng.uniform(0.3, 1.2))
    return on_paper(np.pad(ink, pad), np.pad(printed, pad), rng), text


def squared(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Squared paper: a digit in each square, or a number across two squares' height."""
    text, square = number(rng), rng.uniform(26, 50)
    if rng.random() < 0.5:
        pen = Pen(square * rng.uniform(0.75, 0.95), square * rng.uniform(0.06, 0.11))
        ink = np.zeros((round(square), round(square * len(text))), np.float32)
        for index, drawn in enumerate(write(text, digits, pen, rng)):
            drawn = _within(drawn, int(square), int(square))
            left = round(square * index) + (int(square) - drawn.shape[1]) // 2
            ink[-drawn.shape[0] :, left : left + drawn.shape[1]] = drawn
    else:
        pen = Pen(square * rng.uniform(1.2, 1.9), square * rng.uniform(0.09, 0.16))
        ink = _write_row(text, digits, pen, rng, gaps=(0.1, 0.3))
    top, left = (round(square * rng.integers(1, 4)) for _ in range(2))
    bottom, right = (round(square * rng.uniform(1, 3)) for _ in range(2))
    ink = np.pad(ink, ((top, bottom), (left, right)))
    return on_paper(ink, surfaces.ruling(ink.shape, square, square), rng), text


def ruled(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Ruled paper: a number on a line, or across it."""
    text, pen = number(rng), any_pen(rng)
    ink = _write_row(text, digits, pen, rng, gaps=(0.1, 0.3))
    ink = margins(rotate(ink, rng.uniform(-2, 2)), pen.height, rng, 0.5, 2.5)
    printed = surfaces.ruling(ink.shape, pen.height * rng.uniform(1.1, 2), None, rng.uniform(0, pen.height))
    return on_paper(ink, printed, rng), text


def dates(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A date with points, strokes or hyphens, which the text leaves out."""
    day, month, year = (int(rng.integers(*span)) for span in ((1, 32), (1, 13), (1950, 2031)))
    parts = (
        [f"{day:02}", f"{month:02}", str(year)]
        if rng.random() < 0.5
        else [str(day), str(month), str(year % 100).zfill(2)]
    )
    if rng.random() < 0.2:
        parts = [str(year), f"{month:02}", f"{day:02}"]
    text, pen = pick([".", "/", "-"], rng).join(parts), any_pen(rng, 30, 90)
    ink = _write_signs(text, digits, pen, rng, gaps=(0.08, 0.25))
    return anywhere(margins(ink, pen.height, rng), None, rng), "".join(parts)


def canvas(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A round brush on a web canvas: black on white, white on black, or transparent."""
    text, height = number(rng, 2, 5), rng.uniform(50, 160)
    pen = Pen(height, max(4, height * rng.uniform(0.07, 0.17)), 1.2)
    ink = margins(_write_row(text, digits, pen, rng, gaps=(0.12, 0.4)), height, rng, 0.2, 0.8)
    return pick([surfaces.screen, surfaces.transparent], rng)(ink, None, rng), text


def printed_fonts(_: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A number in a printed font."""
    text, height = number(rng), float(np.exp(rng.uniform(np.log(18), np.log(90))))
    return anywhere(margins(print_text(text, any_font(rng), height), height, rng), None, rng), text


def pencil(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Grey pencil on paper in uneven light, photographed obliquely."""
    text, pen = number(rng), any_pen(rng, 45)
    ink = _write_row(text, digits, pen, rng, gaps=(0.1, 0.35))
    return surfaces.pencil(margins(ink, pen.height, rng, 0.8, 2.5), None, rng), text


def amounts(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A cheque's amount, written fast over a printed line; digits nearly touch or do."""
    amount = int(np.exp(rng.uniform(np.log(1000), np.log(5_000_000))))
    whole, cents = f"{amount // 100:,}".replace(",", pick([".", ""], rng)), f"{amount % 100:02}"
    text = whole if rng.random() < 0.2 else f"{whole},{cents}"
    before, after = pick([("", ""), ("", ""), ("#", "#"), ("", "-"), ("", "="), ("=", "=")], rng)
    height = rng.uniform(28, 60)
    pen = Pen(height, height * rng.uniform(0.06, 0.12), 1.35)
    ink = _write_signs(before + text + after, digits, pen, rng, gaps=(-0.03, 0.12), by_ink=True)
    ink = rotate(shear(ink, rng.uniform(0, 20)), rng.uniform(-4, 4))
    baseline = ink.shape[0] + round(height * rng.uniform(-0.15, 0.2))
    top, bottom, left, right = (height * rng.uniform(0.2, 0.8, 4)).astype(int)
    ink = np.pad(ink, ((top, bottom), (left, right)))
    printed = np.zeros_like(ink)
    for y in (top + baseline, 2) if rng.random() < 0.3 else (top + baseline,):
        cv2.line(printed, (0, y), (ink.shape[1], y), 1, int(rng.integers(1, 3)))
    return surfaces.cheque(ink, printed, rng), "".join(filter(str.isdigit, text))


def times(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A time of day, with a colon or a point."""
    hour, minute = int(rng.integers(24)), int(rng.integers(60))
    first = f"{hour:02}" if rng.random() < 0.5 else str(hour)
    text, pen = f"{first}{pick([':', '.'], rng)}{minute:02}", any_pen(rng, 30, 90)
    ink = _write_signs(text, digits, pen, rng, gaps=(0.08, 0.25))
    return anywhere(margins(ink, pen.height, rng), None, rng), text


def prices(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """An amount with two decimals, below 1,000."""
    cents = int(np.exp(rng.uniform(np.log(100), np.log(100_000))))
    text, pen = f"{cents // 100}{pick(['.', ','], rng)}{cents % 100:02}", any_pen(rng, 30, 90)
    ink = _write_signs(text, digits, pen, rng, gaps=(0.08, 0.25))
    return anywhere(margins(ink, pen.height, rng), None, rng), text


def percentages(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A whole percentage of two digits."""
    text, pen = f"{rng.integers(10, 100)}%", any_pen(rng, 30, 90)
    ink = _write_signs(text, digits, pen, rng, gaps=(0.08, 0.25))
    return anywhere(margins(ink, pen.height, rng), None, rng), text


def telephones(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """A telephone number of ten digits in three groups."""
    first, *others = (number(rng, count, count) for count in (2, 3, 4))
    text, pen = " ".join((pick(["(0{})", "0{}"], rng).format(first), *others)), any_pen(rng, 28, 70)
    groups = [_write_signs(group, digits, pen, rng, gaps=(0.08, 0.25)) for group in text.split()]
    ink = row(groups, (pen.height * rng.uniform(0.5, 0.9, 2)).tolist())
    return anywhere(margins(ink, pen.height, rng), None, rng), text


def at_the_edges(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """Ink that touches the picture's edges, or leaves it by up to 4 % on one side."""
    pen = any_pen(rng, 40, 200)
    [ink], text = _one(digits, pen, rng)
    side = np.rot90(ink, turns := int(rng.integers(4)))
    cut = trim(np.rot90(side[round(rng.uniform(0, 0.04) * side.shape[0]) :], -turns), 0.3)
    return anywhere(np.ascontiguousarray(cut), None, rng), text


def in_a_box(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """One digit in its printed box on a page."""
    pen = any_pen(rng, 40, 160)
    [ink], text = _one(digits, pen, rng)
    inner = [
        round(length + pen.height * rng.uniform(0.2, 0.6))
        for length in (pen.height, max(pen.height * 0.8, ink.shape[1]))
    ]
    ink = _within(ink, inner[0] - 4, inner[1] - 4)
    free = inner[0] - ink.shape[0], inner[1] - ink.shape[1]
    top, left = (round(length * rng.uniform(0.3, 0.7)) for length in free)
    ink = np.pad(ink, ((top, free[0] - top), (left, free[1] - left)))
    printed = np.zeros_like(ink)
    cv2.rectangle(printed, (0, 0), (ink.shape[1] - 1, ink.shape[0] - 1), 1, int(rng.integers(1, 5)))
    sides = (pen.height * rng.uniform(0.2, 1.5, 4)).astype(int)
    padding = (sides[0], sides[1]), (sides[2], sides[3])
    return on_paper(np.pad(ink, padding), np.pad(printed, padding), rng), text


def beside_a_label(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """One digit right of a smaller printed word, or below it."""
    pen = any_pen(rng, 50, 160)
    [ink], text = _one(digits, pen, rng)
    label = print_text(pick(_LABELS, rng), any_font(rng), pen.height * rng.uniform(0.2, 0.4))
    gap = round(pen.height * rng.uniform(0.25, 0.6))
    if rng.random() < 0.6:
        sheet = np.zeros((max(ink.shape[0], label.shape[0]), label.shape[1] + gap + ink.shape[1]), np.float32)
        top = (sheet.shape[0] - label.shape[0]) // 2
        printed, written = sheet.copy(), sheet
        printed[top : top + label.shape[0], : label.shape[1]] = label
        written[-ink.shape[0] :, -ink.shape[1] :] = ink
    else:
        sheet = np.zeros((label.shape[0] + gap + ink.shape[0], max(ink.shape[1], label.shape[1])), np.float32)
        printed, written = sheet.copy(), sheet
        printed[: label.shape[0], : label.shape[1]] = label
        written[-ink.shape[0] :, : ink.shape[1]] = ink
    pad = round(pen.height * rng.uniform(0.2, 0.8))
    return on_paper(np.pad(written, pad), np.pad(printed, pad), rng), text


def underlined(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """One digit with a line under it."""
    pen = any_pen(rng, 40, 200)
    [ink], text = _one(digits, pen, rng)
    return anywhere(
        margins(rotate(underline(ink, pen.width), rng.uniform(-3, 3)), pen.height, rng), None, rng
    ), text


def encircled(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """One digit in a drawn circle."""
    pen = any_pen(rng, 40, 160)
    [ink], text = _one(digits, pen, rng)
    return anywhere(margins(encircle(ink, pen.width), pen.height, rng), None, rng), text


def with_specks(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """One digit beside one to four specks of dirt, up to a tenth of its height."""
    pen = any_pen(rng, 40, 200)
    [ink], text = _one(digits, pen, rng)
    ink = margins(ink, pen.height, rng, 0.4)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(ink.shape[1])), int(rng.integers(ink.shape[0]))
        radius = max(1, round(pen.height * rng.uniform(0.01, 0.05)))
        cv2.circle(ink, place, radius, float(rng.uniform(0.4, 1)), -1, cv2.LINE_AA)
    return anywhere(ink, None, rng), text


def plain(digits: Digits, rng: np.random.Generator) -> tuple[bytes, str]:
    """One digit with nothing else."""
    pen = any_pen(rng, 28, 200)
    [ink], text = _one(digits, pen, rng)
    return anywhere(margins(ink, pen.height, rng, 0.2), None, rng), text


NUMBERS: dict[str, Family] = {
    family.__name__.replace("_", " "): family
    for family in (
        spaced,
        tight,
        touching,
        slanted,
        sizes,
        long,
        two_lines,
        boxes,
        squared,
        ruled,
        dates,
        canvas,
        printed_fonts,
        pencil,
        amounts,
    )
}

WITH_SIGNS: dict[str, Family] = {
    family.__name__: family for family in (times, prices, percentages, telephones)
}
"""Numbers whose text has its sign, for callers who expect one."""

SINGLES: dict[str, Family] = {
    family.__name__.replace("_", " "): family
    for family in (plain, at_the_edges, in_a_box, beside_a_label, underlined, encircled, with_specks)
}


def _one(digits: Digits, pen: Pen, rng: np.random.Generator) -> tuple[list[Ink], str]:
    text = number(rng, 1, 1)
    return write(text, digits, pen, rng), text


def _write_row(
    text: str,
    digits: Digits,
    pen: Pen,
    rng: np.random.Generator,
    *,
    gaps: tuple[float, float],
    by_ink: bool = False,
) -> Ink:
    """Write a number; `gaps` bounds its gaps, as a share of the pen's height."""
    inks = write(text, digits, pen, rng)
    rises = pen.height * rng.uniform(-0.04, 0.04, len(inks))
    distances = pen.height * rng.uniform(*gaps, len(inks) - 1)
    return row(inks, distances.tolist(), rises=rises.tolist(), by_ink=by_ink)


def _write_signs(
    text: str,
    digits: Digits,
    pen: Pen,
    rng: np.random.Generator,
    *,
    gaps: tuple[float, float],
    by_ink: bool = False,
) -> Ink:
    """Write digits, and the signs between them."""
    inks, rises = [], []
    for character in text:
        if character.isdigit():
            inks += write(character, digits, pen, rng)
            rises.append(pen.height * rng.uniform(-0.06, 0.06))
        else:
            sign, rise = _sign(character, pen, rng)
            inks.append(sign)
            rises.append(rise)
    distances = pen.height * rng.uniform(*gaps, len(inks) - 1)
    return row(inks, distances.tolist(), rises=rises, by_ink=by_ink)


def _sign(character: str, pen: Pen, rng: np.random.Generator) -> tuple[Ink, float]:
    """Draw a sign with the pen; return it, and how far above the baseline it stands."""
    height = pen.height
    length = rng.uniform(0.25, 0.4)
    strokes, size, rise = {
        ".": ([line(0, 0, 0.02, 0.01)], 0.02, 0.0),
        ",": ([line(0.1, 0, 0, 0.2)], 0.2, -0.12),
        ":": ([line(0, 0, 0.02, 0.01), line(0.02, 0.4, 0.04, 0.41)], 0.42, 0.12),
        "/": ([line(0.4, 0, 0, 1)], 1.25, -0.12),
        "-": ([line(0, 0, 1, 0)], length, 0.45),
        "=": ([line(0, 0, 1, 0), line(0, 0.45, 1, 0.45)], length * 1.3, 0.35),
        "#": (
            [line(0.3, 0, 0.15, 1), line(0.75, 0, 0.6, 1), line(0, 0.35, 0.9, 0.3), line(0, 0.7, 0.9, 0.65)],
            0.9,
            0.0,
        ),
        "%": ([arc(0.2, 0.2, 0.16), line(0.8, 0, 0.1, 1), arc(0.75, 0.8, 0.16)], 0.9, 0.0),
        "(": ([arc(0, 0, 1, 120, 240, 2.2)], 1.15, -0.1),
        ")": ([arc(0, 0, 1, -60, 60, 2.2)], 1.15, -0.1),
    }[character]
    return sketch(strokes, size * height, pen.width * (1.3 if character == "." else 1), rng), rise * height


def _within(ink: Ink, height: int, width: int) -> Ink:
    """Reduce the ink to a size at most."""
    scale = min(1.0, height / ink.shape[0], width / ink.shape[1])
    if scale == 1:
        return ink
    size = (max(1, int(ink.shape[1] * scale)), max(1, int(ink.shape[0] * scale)))
    return np.asarray(cv2.resize(ink, size, interpolation=cv2.INTER_AREA), np.float32)
