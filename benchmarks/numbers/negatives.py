"""Pictures without digits: letters, words, drawings, paper and things. Look-alikes of digits are left out."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np

from benchmarks.handwriting import files, paper
from benchmarks.handwriting.pen import Ink
from benchmarks.numbers import surfaces
from benchmarks.numbers.fonts import any_font, print_text
from benchmarks.numbers.surfaces import anywhere, margins, on_paper, pick
from benchmarks.numbers.writing import Points, arc, line, row, shear, sketch, stack

Negative = Callable[[np.random.Generator], tuple[bytes, None]]

_LETTERS = "ACDEFGHJKLMNPQRTUVWXYacdefhjkmnprtuvwxy"
# Without letters that look like digits, and all of letters below.
_WORDS = [
    *(
        "under",
        "weather",
        "water",
        "never",
        "market",
        "camera",
        "paper",
        "nature",
        "farmer",
        "danke",
        "Tanne",
    ),
    *("Herr", "Frau", "Vater", "Hund", "hurra", "machen", "entfernt", "Karte", "Kaffee", "ferner", "Ware"),
    *("Text", "Name", "check", "track", "heavy", "many", "try", "prepare", "tax", "peach", "Hummer", "Wanne"),
]
_SYMBOLS = ["+", "=", "#", "&", "@", "%", "?", "*", "<", ">", "~", "§", "€", "{", "}", "±"]

# Letters as polylines on a grid 4 wide and 6 high (8 with a descender): digits are x and y of each point.
_STROKES = {
    "A": "062046 1434",
    "D": "0006 002042442606",
    "E": "40000646 0333",
    "F": "400006 0333",
    "H": "0006 4046 0343",
    "K": "0006 400346",
    "M": "0600234046",
    "N": "06004640",
    "P": "06003041423303",
    "R": "0600304142330346",
    "T": "0040 2026",
    "U": "000516364540",
    "V": "002640",
    "W": "0016233640",
    "X": "0046 4006",
    "Y": "002340 2326",
    "a": "43130405163645 4346",
    "c": "431304051646",
    "d": "43130405163645 4046",
    "e": "0544331304051636",
    "f": "41302126 0343",
    "h": "0006 0413334446",
    "k": "0006 330446",
    "m": "0306 04132426 24334446",
    "n": "0306 0413334446",
    "p": "0308 0413334445361605",
    "r": "0306 04132334",
    "t": "20253646 0242",
    "u": "030516364543 4346",
    "v": "032643",
    "w": "0316243643",
    "x": "0346 4306",
    "y": "0326 4318",
}


def printed_letters(rng: np.random.Generator) -> tuple[bytes, None]:
    """One letter in a font."""
    height = _height(rng)
    return anywhere(
        margins(print_text(pick([*_LETTERS], rng), any_font(rng), height), height, rng), None, rng
    ), None


def written_letters(rng: np.random.Generator) -> tuple[bytes, None]:
    """One letter, written with a pen."""
    height = _height(rng)
    ink = _write(pick([*_STROKES], rng), height, height * rng.uniform(0.05, 0.13), rng)
    return anywhere(margins(shear(ink, rng.uniform(-10, 20)), height, rng), None, rng), None


def written_words(rng: np.random.Generator) -> tuple[bytes, None]:
    """One or two words, written with a pen."""
    height, words = rng.uniform(25, 80), []
    width, slant = height * rng.uniform(0.06, 0.12), rng.uniform(-5, 20)
    for _ in range(int(rng.integers(1, 3))):
        word = pick(_WORDS, rng)
        inks = [_write(letter, height, width, rng) for letter in word]
        rises = [-height / 3 if letter in "py" else 0.0 for letter in word]
        gaps = height * rng.uniform(-0.02, 0.15, len(inks) - 1)
        words.append(row(inks, gaps.tolist(), rises=rises, by_ink=True))
    return anywhere(margins(shear(stack(words, height * 0.6, rng), slant), height, rng), None, rng), None


def printed_words(rng: np.random.Generator) -> tuple[bytes, None]:
    """One word in a font."""
    height = rng.uniform(14, 70)
    return anywhere(
        margins(print_text(pick(_WORDS, rng), any_font(rng), height), height, rng), None, rng
    ), None


def printed_text(rng: np.random.Generator) -> tuple[bytes, None]:
    """Lines of text in a font."""
    lines = "\n".join(
        " ".join(pick(_WORDS, rng) for _ in range(rng.integers(3, 7))) for _ in range(rng.integers(2, 9))
    )
    height = rng.uniform(9, 18)
    return on_paper(margins(print_text(lines, any_font(rng), height), 3 * height, rng), None, rng), None


def symbols(rng: np.random.Generator) -> tuple[bytes, None]:
    """A punctuation mark or another sign, in a font."""
    height = _height(rng)
    ink = print_text(pick(_SYMBOLS, rng), pick(["DejaVuSans", "DejaVuSerif", "DejaVuSansMono"], rng), height)
    return anywhere(margins(ink, height, rng), None, rng), None


def doodles(rng: np.random.Generator) -> tuple[bytes, None]:
    """A house, a face, a star, a heart, a tree, a flower, a sun, a fish, a car, a cat or a cup."""
    star = np.array([[np.sin(turn), -np.cos(turn)] for turn in 4 * np.pi / 5 * np.arange(6)])
    turns = np.linspace(0, 2 * np.pi, 40)
    heart = np.stack(
        [16 * np.sin(turns) ** 3, -13 * np.cos(turns) + 5 * np.cos(2 * turns) + 2 * np.cos(3 * turns)], 1
    )
    petals = [arc(0.9 * np.cos(turn), 0.9 * np.sin(turn), 0.45) for turn in np.linspace(0, 2 * np.pi, 7)[:-1]]
    rays = [
        line(1.3 * np.cos(turn), 1.3 * np.sin(turn), 1.9 * np.cos(turn), 1.9 * np.sin(turn))
        for turn in np.linspace(0, 2 * np.pi, 11)[:-1]
    ]
    drawings = [
        [line(0, 0, 3, 0, 3, 3, 0, 3, 0, 0, 1.5, -1.6, 3, 0), line(1.1, 3, 1.1, 1.7, 1.9, 1.7, 1.9, 3)],
        [arc(0, 0, 2), arc(-0.7, -0.5, 0.15), arc(0.7, -0.5, 0.15), arc(0, 0.1, 1.1, 20, 160)],
        [star],
        [heart],
        [
            line(
                -0.3,
                4,
                -0.3,
                2,
                -2,
                2,
                -0.8,
                0.6,
                -1.4,
                0.6,
                0,
                -1.4,
                1.4,
                0.6,
                0.8,
                0.6,
                2,
                2,
                0.3,
                2,
                0.3,
                4,
            )
        ],
        [arc(0, 0, 0.45), *petals, line(0, 1.4, 0.1, 4), arc(0.7, 2.6, 0.6, 150, 330)],
        [arc(0, 0, 1), *rays],
        [arc(0, 0, 2, 25, 335, 0.55), line(1.8, -0.45, 3, -1, 3, 1, 1.8, 0.45), arc(-1.1, -0.2, 0.12)],
        [
            line(0, 2, 0, 1, 1, 1, 1.8, 0, 3.6, 0, 4.4, 1, 5.4, 1, 5.4, 2, 0, 2),
            arc(1.2, 2.1, 0.5),
            arc(4.2, 2.1, 0.5),
        ],
        [arc(0, 0, 1.4), line(-1.2, -0.8, -1.3, -2, -0.5, -1.3), line(1.2, -0.8, 1.3, -2, 0.5, -1.3)]
        + [line(0.4, 0.4 + y, 2, 0.2 + 1.6 * y) for y in (0, 0.25)]
        + [line(-0.4, 0.4, -2, 0.2)],
        [line(0, 0, 0.3, 3, 2.2, 3, 2.5, 0, 0, 0), arc(2.4, 1.3, 0.8, -80, 80)],
    ]
    return _draw(pick(drawings, rng), rng), None


def stick_figures(rng: np.random.Generator) -> tuple[bytes, None]:
    """One to three stick figures."""
    strokes = []
    for x in 2.6 * np.arange(rng.integers(1, 4)):
        hands, feet, tall = rng.uniform(0.8, 2.4, 2), rng.uniform(0.4, 1, 2), rng.uniform(0.9, 1.2)
        strokes += [
            arc(x, 0, 0.6),
            line(x, 0.6, x, 2.6 * tall),
            line(x - 1, hands[0], x, 1.3, x + 1, hands[1]),
            line(x - feet[0], 4.2 * tall, x, 2.6 * tall, x + feet[1], 4.2 * tall),
        ]
    return _draw(strokes, rng), None


def scribbles(rng: np.random.Generator) -> tuple[bytes, None]:
    """A tangle, a zigzag or a coil, with many turns."""
    kind = rng.random()
    if kind < 0.4:
        stroke = _rounded(rng.uniform(0, 4, (int(rng.integers(9, 25)), 2)), 3)
    elif kind < 0.7:
        count = int(rng.integers(8, 20))
        stroke = np.stack(
            [
                np.arange(count) * rng.uniform(0.15, 0.5),
                rng.uniform(0, 0.6, count) + 3 * (np.arange(count) % 2),
            ],
            1,
        )
    else:
        turns = np.linspace(0, 2 * np.pi * rng.uniform(3.5, 8), 200)
        stroke = np.stack(
            [np.cos(turns) + turns * rng.uniform(0.06, 0.3), rng.uniform(0.7, 1.5) * np.sin(turns)], 1
        )
    return _draw([stroke], rng), None


def arrows(rng: np.random.Generator) -> tuple[bytes, None]:
    """An arrow in any direction, straight, bent, double or hollow."""
    shaft = pick([line(0, 0, 4, 0), _rounded(line(0, 1.5, 1.5, -0.5, 4, 0), 3), line(0, -2, 0, 0, 4, 0)], rng)
    drawings = [
        [shaft, line(3, -0.9, 4, 0, 3, 0.9)],
        [line(0, 0, 4, 0), line(3, -0.9, 4, 0, 3, 0.9), line(1, -0.9, 0, 0, 1, 0.9)],
        [line(0, -0.5, 2.5, -0.5, 2.5, -1.3, 4, 0, 2.5, 1.3, 2.5, 0.5, 0, 0.5, 0, -0.5)],
    ]
    turn = pick([0.0, 0.5, 1.0, 1.5], rng) * np.pi + rng.uniform(-0.4, 0.4)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return _draw([stroke @ rotation for stroke in pick(drawings, rng)], rng), None


def music(rng: np.random.Generator) -> tuple[bytes, None]:
    """Notes, a sharp or a clef; sometimes on a stave."""
    heads = [
        _rounded(np.vstack([arc(x, 4, radius, -30, 330, 0.7) for radius in (0.2, 0.4, 0.6)]), 1)
        for x in (0, 2.6)
    ]
    clef = line(
        1.2,
        4.2,
        1.9,
        3.6,
        1.2,
        2.7,
        0.2,
        3.3,
        0.4,
        4.8,
        1.8,
        4.9,
        2.4,
        3.6,
        1.6,
        1.4,
        1.2,
        -0.6,
        1.9,
        -1.4,
        2.2,
        -0.2,
        1.3,
        1.6,
    )
    drawings = [
        [heads[0], line(0.6, 4, 0.6, 0, 3.2, 0, 3.2, 4), heads[1], line(0.6, 0.5, 3.2, 0.5)],
        [heads[0], line(0.6, 4, 0.6, 0), _rounded(line(0.6, 0, 1, 1, 2, 1.6, 1.6, 2.8), 2)],
        [line(0.4, 0, 0.2, 4), line(1.4, 0, 1.2, 4), line(-0.4, 1.4, 2, 1), line(-0.4, 3, 2, 2.6)],
        [_rounded(clef, 3), line(1.3, 1.6, 2.2, 6)],
    ]
    strokes = pick(drawings, rng)
    if rng.random() < 0.4:
        left, right = -1.5, 6.0
        strokes = strokes + [line(left, y, right, y) for y in (0.0, 1.2, 2.4, 3.6, 4.8)]
    return _draw(strokes, rng), None


def check_marks(rng: np.random.Generator) -> tuple[bytes, None]:
    """A check mark or a cross, alone or in its box."""
    mark = pick(
        [[line(0, 0.6, 0.5, 1.2, rng.uniform(1.4, 2), -0.5)], [line(0, 0, 1.2, 1.2), line(1.2, 0, 0, 1.2)]],
        rng,
    )
    box = [line(-0.3, -0.3, 1.5, -0.3, 1.5, 1.5, -0.3, 1.5, -0.3, -0.3)] if rng.random() < 0.5 else []
    return _draw([*mark, *box], rng), None


def blank_in_shadow(rng: np.random.Generator) -> tuple[bytes, None]:
    """An empty sheet with one or two shadows, sometimes a finger."""
    picture = _sheet(rng)
    for _ in range(int(rng.integers(1, 3))):
        picture = paper.cast_shadow(picture, rng)
    if rng.random() < 0.3:
        picture = paper.draw(picture, paper.finger(picture.shape[0], picture.shape[1], rng), (205, 155, 130))
    return files.jpeg(paper.camera(paper.illuminate(picture, rng), rng), rng), None


def crumpled(rng: np.random.Generator) -> tuple[bytes, None]:
    """An empty sheet with folds and creases, or a noisy one."""
    picture = _sheet(rng)
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    relief = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(3, 14))):
        turn, fall = rng.uniform(0, np.pi), rng.uniform(30, 200)
        across = (x - rng.uniform(0, width)) * np.cos(turn) + (y - rng.uniform(0, height)) * np.sin(turn)
        # A crease: one side turns away from the light, most of all at the crease.
        relief += rng.uniform(2, 11) * np.sign(across) * np.exp(-np.abs(across) / fall)
    picture += relief[:, :, None] + rng.uniform(0, 5) * paper.texture(height, width, 4, rng)[:, :, None]
    return files.jpeg(paper.camera(paper.illuminate(picture, rng), rng, rng.uniform(3, 14)), rng), None


def ruled_paper(rng: np.random.Generator) -> tuple[bytes, None]:
    """Ruled or squared paper, with nothing written on it."""
    shape, gap = (int(rng.integers(200, 500)), int(rng.integers(200, 650))), rng.uniform(16, 60)
    printed = surfaces.ruling(shape, gap, gap if rng.random() < 0.5 else None, rng.uniform(0, gap))
    return on_paper(np.zeros(shape, np.float32), printed, rng), None


def empty_boxes(rng: np.random.Generator) -> tuple[bytes, None]:
    """Printed cells: a row, a table with any columns, or one frame."""
    rows, columns = pick(
        [(1, 1), (1, int(rng.integers(2, 9))), (int(rng.integers(2, 6)), int(rng.integers(2, 6)))], rng
    )
    ys = np.cumsum([0, *rng.integers(28, 34, rows)]) * int(rng.integers(1, 3))
    xs = np.cumsum(
        [0, *(rng.integers(24, 90, columns) if rows > 1 else [int(rng.integers(24, 60))] * columns)]
    )
    printed, thickness = np.zeros((int(ys[-1]) + 1, int(xs[-1]) + 1), np.float32), int(rng.integers(1, 4))
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            cv2.rectangle(printed, (int(left), int(top)), (int(right), int(bottom)), 1, thickness)
    printed = margins(printed, 50, rng)
    return on_paper(np.zeros_like(printed), printed, rng), None


def textures(rng: np.random.Generator) -> tuple[bytes, None]:
    """Wood, bricks, fabric, leaves, a landscape or lights out of focus."""
    height, width = 360, 480
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rough = [paper.texture(height, width, size, rng) for size in (4, 20, 90)]
    colour = np.clip(rng.uniform(60, 210) + rng.normal(0, 25, 3), 20, 240)
    other = np.clip(colour * rng.choice([0.35, 0.6, 1.4]) + rng.normal(0, 12, 3), 10, 250)
    kind = int(rng.integers(6))
    if kind == 0:
        mix = 0.5 + 0.5 * np.sin(y / rng.uniform(4, 15) + 2.5 * rough[2] + 0.4 * rough[1])
    elif kind == 1:
        shift = 32 * ((y // 28) % 2)
        mix = ((y % 28 < 4) | ((x + shift) % 64 < 4)).astype(np.float32) + 0.12 * rough[0]
    elif kind == 2:
        mix = (
            0.5
            + 0.25 * np.sin(x / rng.uniform(1.5, 5))
            + 0.25 * np.sin(y / rng.uniform(1.5, 5))
            + 0.05 * rough[1]
        )
    elif kind == 3:
        mix = (np.abs(rough[1]) + 0.4 * rough[0] > 0.7).astype(np.float32)
    elif kind == 4:
        mix = (y / height > 0.5 + 0.12 * rough[2][0] + 0.02 * rough[1][0]) * (
            0.7 + 0.2 * rough[0]
        ) + 0.1 * rough[2]
    else:
        mix = np.zeros((height, width), np.float32)
        for _ in range(int(rng.integers(4, 20))):
            light = np.zeros_like(mix)
            place = int(rng.integers(width)), int(rng.integers(height))
            cv2.circle(light, place, int(rng.integers(10, 60)), float(rng.uniform(0.2, 0.9)), -1, cv2.LINE_AA)
            mix += cv2.GaussianBlur(light, (0, 0), 4)
    mix = np.clip(mix, 0, 1.2)[:, :, None]
    picture = np.asarray(colour * (1 - mix) + other * mix, np.float32)
    return files.jpeg(paper.camera(paper.illuminate(picture, rng), rng, 8), rng), None


def barcodes(rng: np.random.Generator) -> tuple[bytes, None]:
    """A barcode without its number, or a matrix code."""
    if rng.random() < 0.6:
        bars = np.repeat(rng.integers(0, 2, int(rng.integers(60, 100))), 2).astype(np.float32)
        ink = np.repeat(np.pad(bars, 3, constant_values=1)[None], int(rng.integers(50, 120)), 0)
    else:
        modules = rng.integers(0, 2, (25, 25)).astype(np.float32)
        for top, left in ((0, 0), (0, 18), (18, 0)):
            modules[top : top + 7, left : left + 7] = np.pad(np.pad(np.ones((3, 3)), 1), 1, constant_values=1)
        ink = np.kron(modules, np.ones((6, 6))).astype(np.float32)
    return on_paper(margins(ink, 60, rng), None, rng), None


NEGATIVES: dict[str, Negative] = {
    family.__name__.replace("_", " "): family
    for family in (
        printed_letters,
        written_letters,
        written_words,
        printed_words,
        printed_text,
        symbols,
        doodles,
        stick_figures,
        scribbles,
        arrows,
        music,
        check_marks,
        blank_in_shadow,
        crumpled,
        ruled_paper,
        empty_boxes,
        textures,
        barcodes,
    )
}


def _draw(strokes: Sequence[Points], rng: np.random.Generator) -> bytes:
    """Draw strokes by hand, anywhere."""
    height = _height(rng) * 1.5
    ink = sketch(strokes, height, max(1.5, height * rng.uniform(0.02, 0.07)), rng)
    return anywhere(margins(ink, height, rng, 0.15, 1), None, rng)


def _write(letter: str, height: float, width: float, rng: np.random.Generator) -> Ink:
    """Write a letter; a capital is `height` pixels high."""
    strokes = [np.array([*stroke], float).reshape(-1, 2) for stroke in _STROKES[letter].split()]
    tallest = max(float(np.ptp(stroke, axis=0).max()) for stroke in [np.vstack(strokes)])
    rounds = int(rng.integers(0, 3)) if letter.isupper() else 2
    return sketch([_rounded(stroke, rounds) for stroke in strokes], height * tallest / 6, width, rng)


def _rounded(stroke: Points, times: int) -> Points:
    """Round the corners of a polyline: Chaikin's algorithm."""
    for _ in range(times):
        inner = np.stack(
            [0.75 * stroke[:-1] + 0.25 * stroke[1:], 0.25 * stroke[:-1] + 0.75 * stroke[1:]], axis=1
        )
        stroke = np.vstack([stroke[:1], inner.reshape(-1, 2), stroke[-1:]])
    return stroke


def _height(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(30), np.log(180))))


def _sheet(rng: np.random.Generator) -> paper.Picture:
    height, width = pick([(480, 640), (640, 480), (300, 300)], rng)
    level = rng.uniform(205, 252)
    picture = paper.sheet(height, width, (level, level, level - rng.uniform(0, 20)))
    return picture + 1.5 * paper.texture(height, width, 3, rng)[:, :, None]
