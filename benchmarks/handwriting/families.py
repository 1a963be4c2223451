"""Families of difficult, realistic pictures: each function turns MNIST's digit into an image file."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.handwriting import files, paper
from benchmarks.handwriting.pen import Digit, Ink, encircle, enlarge, place, redraw, rotate, trim, underline

Family = Callable[[Digit, np.random.Generator], bytes]

_PAPERS = [(250, 250, 248), (244, 236, 214), (215, 215, 212), (232, 226, 220)]
_TABLES = [(90, 60, 40), (40, 40, 45), (150, 120, 90)]
_SKINS = [(215, 165, 140), (150, 100, 75), (90, 60, 45)]
_INKS = [(30, 30, 35), (30, 45, 130), (150, 30, 35), (25, 100, 50), (80, 40, 110)]


def on_a_table(digit: Digit, rng: np.random.Generator) -> bytes:
    """A small sheet, square or long, with the table around it."""
    rows, columns = 480, 640
    height, width = (int(length) for length in rng.uniform(180, 400, 2))
    drawn = redraw(digit, int(rng.uniform(0.3, 0.7) * min(height, width)), rng.uniform(8, 16))
    ink = place(drawn, height, width, rng)
    sheet = paper.sheet(height, width, _pick(_PAPERS, rng))
    sheet = paper.draw(sheet, ink * np.float32(0.92), _pick(_INKS, rng))
    table = paper.sheet(rows, columns, _pick(_TABLES, rng))
    table += 6 * paper.texture(rows, columns, 20, rng)[:, :, None]
    transform = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-8, 8), rng.uniform(0.9, 1.1))
    transform[:, 2] += (rng.uniform(20, columns - width - 20), rng.uniform(20, rows - height - 20))
    picture = paper.project(sheet, table, np.vstack([transform, [0, 0, 1]]))
    return _shoot(picture, rng)


def in_shadow(digit: Digit, rng: np.random.Generator) -> bytes:
    """A photograph with a shadow on it."""
    height, width = 480, 640
    ink = place(redraw(digit, int(rng.uniform(0.2, 0.6) * height), rng.uniform(8, 18)), height, width, rng)
    sheet = paper.sheet(height, width, _pick(_PAPERS, rng))
    picture = paper.cast_shadow(paper.draw(sheet, ink * np.float32(0.92), _pick(_INKS, rng)), rng)
    return _shoot(picture, rng)


def cropped(digit: Digit, rng: np.random.Generator) -> bytes:
    """A photograph cropped to the digit, with hardly any paper around it."""
    height = int(rng.uniform(120, 450))
    drawn = trim(redraw(digit, height, height * rng.uniform(0.05, 0.15)), 0.3)
    ink = np.pad(drawn, int(height * rng.uniform(0, 0.05)))
    sheet = paper.sheet(ink.shape[0], ink.shape[1], _pick(_PAPERS, rng))
    picture = paper.draw(sheet, ink * np.float32(0.92), _pick(_INKS, rng))
    return _shoot(picture, rng)


def pencil(digit: Digit, rng: np.random.Generator) -> bytes:
    """A faint pencil, sharp or blunt, with gaps in rough paper's hollows."""
    height, width = 480, 640
    ink = place(redraw(digit, int(rng.uniform(0.3, 0.8) * height), rng.uniform(5, 20)), height, width, rng)
    rough = rng.uniform(0.2, 0.5) * paper.texture(height, width, rng.uniform(1.5, 3), rng)
    grain = np.clip(0.75 + rough, 0, 1)
    grey = rng.uniform(130, 175)
    picture = paper.draw(paper.sheet(height, width, _pick(_PAPERS[:2], rng)), ink * grain, (grey, grey, grey))
    return files.jpeg(paper.camera(paper.illuminate(picture, rng, 0.6), rng, 2.5), rng)


def blackboard(digit: Digit, rng: np.random.Generator) -> bytes:
    """Chalk on a wiped board."""
    height, width = 480, 640
    board = paper.sheet(height, width, _pick([(35, 60, 48), (45, 45, 48), (30, 40, 35)], rng))
    board += (7 * paper.texture(height, width, 60, rng) + 3 * paper.texture(height, width, 6, rng))[
        :, :, None
    ]
    ink = place(redraw(digit, int(rng.uniform(0.3, 0.8) * height), rng.uniform(9, 18)), height, width, rng)
    chalk = ink * np.clip(0.8 + 0.25 * paper.texture(height, width, 1.5, rng), 0.15, 1)
    return _shoot(paper.draw(board, chalk, (225, 225, 215)), rng)


def whiteboard(digit: Digit, rng: np.random.Generator) -> bytes:
    """A marker on a whiteboard with a lamp's glare."""
    height, width = 480, 640
    ink = place(redraw(digit, int(rng.uniform(0.3, 0.8) * height), rng.uniform(9, 16)), height, width, rng)
    picture = paper.draw(paper.sheet(height, width, (195, 200, 202)), ink, _pick(_INKS, rng))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    center, size = (rng.uniform(0, width), rng.uniform(0, height)), rng.uniform(40, 110)
    glare = np.exp(-(((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * size**2)))
    return _shoot(picture + 60 * glare[:, :, None], rng)


def biro(digit: Digit, rng: np.random.Generator) -> bytes:
    """A thin pen on a large page."""
    height, width = 1000, 750
    drawn = redraw(digit, int(rng.uniform(0.15, 0.6) * height), rng.uniform(3, 5))
    picture = paper.draw(
        paper.sheet(height, width, _pick(_PAPERS, rng)),
        place(drawn, height, width, rng),
        _pick(_INKS[:2], rng),
    )
    return _shoot(picture, rng, noise=2.5)


def canvas(digit: Digit, rng: np.random.Generator) -> bytes:
    """A drawing in a browser, dark on light or light on dark, with any brush."""
    side = int(rng.choice([200, 280, 400]))
    drawn = redraw(digit, int(rng.uniform(0.4, 0.85) * side), side * rng.uniform(0.02, 0.09))
    background, ink = ((255, 255, 255), (0, 0, 0)) if rng.random() < 0.5 else ((0, 0, 0), (255, 255, 255))
    return files.png(paper.draw(paper.sheet(side, side, background), place(drawn, side, side, rng), ink))


def transparent(digit: Digit, rng: np.random.Generator) -> bytes:
    """A transparent PNG with dark, coloured or white ink."""
    side = 280
    drawn = redraw(digit, int(rng.uniform(0.4, 0.85) * side), side * rng.uniform(0.03, 0.08))
    rgba = np.zeros((side, side, 4), np.float32)
    rgba[:, :, :3] = _pick([*_INKS, (255, 255, 255), (250, 200, 40)], rng)
    rgba[:, :, 3] = 255 * place(drawn, side, side, rng)
    return files.png(rgba)


def small_scan(digit: Digit, rng: np.random.Generator) -> bytes:
    """A scan eight to twenty pixels high, dark on light, with a margin of at most two pixels."""
    return files.png(_small(digit, rng))


def enlarged_scan(digit: Digit, rng: np.random.Generator) -> bytes:
    """A small scan, upscaled."""
    interpolation = int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    large = cv2.resize(_small(digit, rng), None, fx=10, fy=10, interpolation=interpolation)
    return files.png(np.clip(large, 0, 255))


def envelope(digit: Digit, rng: np.random.Generator) -> bytes:
    """A crop of a scanned envelope: grey, low contrast, rough edges, touching the border."""
    height = int(rng.uniform(30, 80))
    drawn = redraw(digit, height, height * rng.uniform(0.06, 0.12))
    grain = paper.texture(drawn.shape[0], drawn.shape[1], 1.5, rng)
    rough = np.clip(drawn + 0.15 * grain * (drawn > 0.05), 0, 1)
    pad = int(rng.integers(1, 6))
    ink = np.pad(rough, pad)
    background = rng.uniform(170, 220)
    grey = background - ink * rng.uniform(70, 140) + rng.normal(0, 3, ink.shape)
    return files.png(np.clip(grey, 0, 255))


def broken(digit: Digit, rng: np.random.Generator) -> bytes:
    """Strokes with two or three gaps."""
    side = 300
    height = int(rng.uniform(0.5, 0.8) * side)
    drawn = redraw(digit, height, height * rng.uniform(0.06, 0.1))
    for _ in range(int(rng.integers(2, 4))):
        row, column = np.asarray(rng.choice(np.argwhere(drawn > 0.5)))
        gap = int(height * rng.uniform(0.03, 0.05)) + 1
        cv2.circle(drawn, (int(column), int(row)), gap, 0.0, -1)
    picture = paper.draw(
        paper.sheet(side, side, _pick(_PAPERS, rng)), place(drawn, side, side, rng), (30, 30, 40)
    )
    return _shoot(picture, rng, noise=2.5)


def dirty(digit: Digit, rng: np.random.Generator) -> bytes:
    """Specks and dirt near the digit."""
    height, width = 400, 400
    ink = place(redraw(digit, int(rng.uniform(0.4, 0.7) * height), rng.uniform(14, 24)), height, width, rng)
    for _ in range(int(rng.integers(5, 20))):
        spot = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(ink, spot, int(rng.integers(1, 4)), float(rng.uniform(0.3, 1)), -1, cv2.LINE_AA)
    picture = paper.draw(paper.sheet(height, width, _pick(_PAPERS, rng)), ink, _pick(_INKS, rng))
    return _shoot(picture, rng)


def askew(digit: Digit, rng: np.random.Generator) -> bytes:
    """A sheet on a table, photographed from its lower side."""
    side = 700
    ink = place(redraw(digit, int(rng.uniform(0.25, 0.5) * side), rng.uniform(14, 30)), side, side, rng)
    sheet = paper.sheet(side, side, _pick(_PAPERS, rng))
    sheet = paper.draw(sheet, ink * np.float32(0.92), _pick(_INKS, rng))
    table = paper.sheet(480, 640, _pick(_TABLES, rng))
    table += 4 * paper.texture(480, 640, 20, rng)[:, :, None]
    picture = paper.project(sheet, table, paper.oblique_view(sheet, table, rng))
    return _shoot(picture, rng)


def held(digit: Digit, rng: np.random.Generator) -> bytes:
    """A sheet held by a finger at its border."""
    height, width = 480, 640
    drawn = redraw(digit, int(rng.uniform(0.25, 0.5) * height), rng.uniform(8, 18))
    # Place the digit near the centre, where no finger covers it.
    sheet = np.pad(place(drawn, 280, 280, rng), ((60, 140), (180, 180)))
    picture = paper.sheet(height, width, _pick(_PAPERS, rng))
    picture = paper.draw(picture, sheet * np.float32(0.92), _pick(_INKS, rng))
    picture = paper.draw(picture, paper.finger(height, width, rng), _pick(_SKINS, rng))
    return _shoot(picture, rng)


def _photographed(
    *,
    share: tuple[float, float],
    width: tuple[float, float],
    degrees: float = 3,
    lines: str = "",
    add: Callable[[Ink, float], Ink] | None = None,
) -> Family:
    """Return a family of photographs of ink on a sheet.

    `share` bounds the digit's height as a share of the sheet's, `width` the pen's width as a share of the
    digit's height. `lines` ("ruled" or "squared") are printed on the sheet; `add` draws a circle or a line
    with the same pen.
    """

    def draw(digit: Digit, rng: np.random.Generator) -> bytes:
        rows, columns = (480, 640) if rng.random() < 0.5 else (640, 480)
        height = int(rng.uniform(*share) * min(rows, columns))
        pen = height * rng.uniform(*width)
        drawn: Ink = redraw(digit, height, pen)
        ink = rotate(add(drawn, pen) if add else drawn, rng.uniform(-degrees, degrees))
        shrink = min(1.0, 0.95 * rows / ink.shape[0], 0.95 * columns / ink.shape[1])
        ink = cv2.resize(ink, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        picture = paper.sheet(rows, columns, _pick(_PAPERS, rng))
        picture += 1.5 * paper.texture(rows, columns, 3, rng)[:, :, None]
        if lines:
            picture = paper.draw_lines(picture, rng, squares=lines == "squared")
        picture = paper.draw(picture, place(ink, rows, columns, rng) * np.float32(0.92), _pick(_INKS, rng))
        return _shoot(picture, rng)

    return draw


def _shoot(picture: paper.Picture, rng: np.random.Generator, noise: float = 4.0) -> bytes:
    """Return the photograph of a picture."""
    return files.jpeg(paper.camera(paper.illuminate(picture, rng), rng, noise), rng)


def _small(digit: Digit, rng: np.random.Generator) -> NDArray[np.float32]:
    height = int(rng.choice([8, 16, 20]))
    large = trim(enlarge(digit, 160), 0.3)
    width = max(1, round(large.shape[1] * height / large.shape[0]))
    ink = np.pad(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), int(rng.integers(0, 3)))
    return np.asarray(255 - ink / max(float(ink.max()), 1e-6) * rng.uniform(180, 250), np.float32)


def _pick(colours: Sequence[paper.Colour], rng: np.random.Generator) -> paper.Colour:
    return colours[int(rng.integers(len(colours)))]


FAMILIES: dict[str, Family] = {
    "photo": _photographed(share=(0.15, 0.9), width=(0.06, 0.12)),
    "tilted": _photographed(share=(0.3, 0.8), width=(0.06, 0.12), degrees=10),
    "ruled": _photographed(share=(0.25, 0.7), width=(0.06, 0.1), lines="ruled"),
    "squared": _photographed(share=(0.25, 0.7), width=(0.06, 0.1), lines="squared"),
    "on a table": on_a_table,
    "in shadow": in_shadow,
    "cropped": cropped,
    "pencil": pencil,
    "blackboard": blackboard,
    "whiteboard": whiteboard,
    "biro": biro,
    "felt tip": _photographed(share=(0.3, 0.85), width=(0.13, 0.17)),
    "canvas": canvas,
    "transparent": transparent,
    "small scan": small_scan,
    "enlarged scan": enlarged_scan,
    "envelope": envelope,
    "broken": broken,
    "dirty": dirty,
    "askew": askew,
    "held": held,
    "in a circle": _photographed(share=(0.2, 0.45), width=(0.06, 0.12), add=encircle),
    "with a line under it": _photographed(share=(0.2, 0.6), width=(0.06, 0.12), add=underline),
}

EMPTY_FAMILIES = ["photo", "ruled", "squared", "on a table", "in shadow", "blackboard", "whiteboard", "dirty"]
"""Families that are also tested with nothing written on the picture."""
