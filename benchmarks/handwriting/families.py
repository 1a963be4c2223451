"""Hard, honest pictures of digits, by family: each turns one of MNIST's into the bytes of an image file."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.handwriting import files, paper
from benchmarks.handwriting.pen import Digit, Ink, circled, enlarge, place, redraw, tilt, trim, underlined

Family = Callable[[Digit, np.random.Generator], bytes]

_PAPERS = [(250, 250, 248), (244, 236, 214), (215, 215, 212), (232, 226, 220)]
_TABLES = [(90, 60, 40), (40, 40, 45), (150, 120, 90)]
_SKINS = [(215, 165, 140), (150, 100, 75), (90, 60, 45)]
_INKS = [(30, 30, 35), (30, 45, 130), (150, 30, 35), (25, 100, 50), (80, 40, 110)]


def photo(digit: Digit, rng: np.random.Generator) -> bytes:
    """Ink on a sheet, photographed."""
    return files.jpeg(_written(digit, rng, share=(0.15, 0.9), width=(0.06, 0.12)), rng)


def tilted(digit: Digit, rng: np.random.Generator) -> bytes:
    """The same, turned by up to ten degrees."""
    return files.jpeg(_written(digit, rng, share=(0.3, 0.8), width=(0.06, 0.12), degrees=10), rng)


def ruled(digit: Digit, rng: np.random.Generator) -> bytes:
    """On ruled paper."""
    return files.jpeg(_written(digit, rng, share=(0.25, 0.7), width=(0.06, 0.1), lines="ruled"), rng)


def squared(digit: Digit, rng: np.random.Generator) -> bytes:
    """On squared paper."""
    return files.jpeg(_written(digit, rng, share=(0.25, 0.7), width=(0.06, 0.1), lines="squared"), rng)


def on_a_table(digit: Digit, rng: np.random.Generator) -> bytes:
    """On a small sheet, square or long, with the table around it."""
    rows, columns = 480, 640
    height, width = (int(length) for length in rng.uniform(180, 400, 2))
    drawn = redraw(digit, int(rng.uniform(0.3, 0.7) * min(height, width)), rng.uniform(8, 16))
    ink = place(drawn, height, width, rng)
    sheet = paper.sheet(height, width, _pick(_PAPERS, rng))
    sheet = paper.draw(sheet, ink * np.float32(0.92), _pick(_INKS, rng))
    table = paper.sheet(rows, columns, _pick(_TABLES, rng))
    table += 6 * paper.texture(rows, columns, 20, rng)[:, :, None]
    where = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-8, 8), rng.uniform(0.9, 1.1))
    where[:, 2] += (rng.uniform(20, columns - width - 20), rng.uniform(20, rows - height - 20))
    picture = paper.lay(sheet, table, np.vstack([where, [0, 0, 1]]))
    return files.jpeg(paper.camera(paper.light(picture, rng), rng), rng)


def in_shadow(digit: Digit, rng: np.random.Generator) -> bytes:
    """A photograph on which a shadow lies."""
    height, width = 480, 640
    ink = place(redraw(digit, int(rng.uniform(0.2, 0.6) * height), rng.uniform(8, 18)), height, width, rng)
    sheet = paper.sheet(height, width, _pick(_PAPERS, rng))
    picture = paper.shadow(paper.draw(sheet, ink * np.float32(0.92), _pick(_INKS, rng)), rng)
    return files.jpeg(paper.camera(paper.light(picture, rng), rng), rng)


def cropped(digit: Digit, rng: np.random.Generator) -> bytes:
    """A photograph that was cut to the digit, with hardly any paper around it."""
    height = int(rng.uniform(120, 450))
    drawn = trim(redraw(digit, height, height * rng.uniform(0.05, 0.15)), 0.3)
    ink = np.pad(drawn, int(height * rng.uniform(0, 0.05)))
    sheet = paper.sheet(ink.shape[0], ink.shape[1], _pick(_PAPERS, rng))
    picture = paper.draw(sheet, ink * np.float32(0.92), _pick(_INKS, rng))
    return files.jpeg(paper.camera(paper.light(picture, rng), rng), rng)


def pencil(digit: Digit, rng: np.random.Generator) -> bytes:
    """A faint pencil, sharp or blunt, that leaves out what is low where the paper is rough."""
    height, width = 480, 640
    ink = place(redraw(digit, int(rng.uniform(0.3, 0.8) * height), rng.uniform(5, 20)), height, width, rng)
    rough = rng.uniform(0.2, 0.5) * paper.texture(height, width, rng.uniform(1.5, 3), rng)
    grain = np.clip(0.75 + rough, 0, 1)
    grey = rng.uniform(130, 175)
    picture = paper.draw(paper.sheet(height, width, _pick(_PAPERS[:2], rng)), ink * grain, (grey, grey, grey))
    return files.jpeg(paper.camera(paper.light(picture, rng, 0.6), rng, 2.5), rng)


def blackboard(digit: Digit, rng: np.random.Generator) -> bytes:
    """Chalk on a board that was wiped before."""
    height, width = 480, 640
    board = paper.sheet(height, width, _pick([(35, 60, 48), (45, 45, 48), (30, 40, 35)], rng))
    board += (7 * paper.texture(height, width, 60, rng) + 3 * paper.texture(height, width, 6, rng))[
        :, :, None
    ]
    ink = place(redraw(digit, int(rng.uniform(0.3, 0.8) * height), rng.uniform(9, 18)), height, width, rng)
    chalk = ink * np.clip(0.8 + 0.25 * paper.texture(height, width, 1.5, rng), 0.15, 1)
    return files.jpeg(paper.camera(paper.light(paper.draw(board, chalk, (225, 225, 215)), rng), rng), rng)


def whiteboard(digit: Digit, rng: np.random.Generator) -> bytes:
    """A marker on a whiteboard in which a lamp is mirrored."""
    height, width = 480, 640
    ink = place(redraw(digit, int(rng.uniform(0.3, 0.8) * height), rng.uniform(9, 16)), height, width, rng)
    picture = paper.draw(paper.sheet(height, width, (195, 200, 202)), ink, _pick(_INKS, rng))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    centre, size = (rng.uniform(0, width), rng.uniform(0, height)), rng.uniform(40, 110)
    glare = np.exp(-(((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * size**2)))
    return files.jpeg(paper.camera(paper.light(picture + 60 * glare[:, :, None], rng), rng), rng)


def biro(digit: Digit, rng: np.random.Generator) -> bytes:
    """A thin line on a big page."""
    height, width = 1000, 750
    drawn = redraw(digit, int(rng.uniform(0.15, 0.6) * height), rng.uniform(3, 5))
    picture = paper.draw(
        paper.sheet(height, width, _pick(_PAPERS, rng)),
        place(drawn, height, width, rng),
        _pick(_INKS[:2], rng),
    )
    return files.jpeg(paper.camera(paper.light(picture, rng), rng, 2.5), rng)


def felt_tip(digit: Digit, rng: np.random.Generator) -> bytes:
    """A thick pen."""
    return files.jpeg(_written(digit, rng, share=(0.3, 0.85), width=(0.13, 0.17)), rng)


def canvas(digit: Digit, rng: np.random.Generator) -> bytes:
    """A drawing in a browser, dark on light or light on dark, with any brush."""
    side = int(rng.choice([200, 280, 400]))
    drawn = redraw(digit, int(rng.uniform(0.4, 0.85) * side), side * rng.uniform(0.02, 0.09))
    ground, ink = ((255, 255, 255), (0, 0, 0)) if rng.random() < 0.5 else ((0, 0, 0), (255, 255, 255))
    return files.png(paper.draw(paper.sheet(side, side, ground), place(drawn, side, side, rng), ink))


def transparent(digit: Digit, rng: np.random.Generator) -> bytes:
    """A transparent PNG with dark, coloured or white ink."""
    side = 280
    drawn = redraw(digit, int(rng.uniform(0.4, 0.85) * side), side * rng.uniform(0.03, 0.08))
    rgba = np.zeros((side, side, 4), np.float32)
    rgba[:, :, :3] = _pick([*_INKS, (255, 255, 255), (250, 200, 40)], rng)
    rgba[:, :, 3] = 255 * place(drawn, side, side, rng)
    return files.png(rgba)


def small_scan(digit: Digit, rng: np.random.Generator) -> bytes:
    """Eight to twenty pixels high, dark on light, with up to two pixels around it or none."""
    return files.png(_small(digit, rng))


def enlarged_scan(digit: Digit, rng: np.random.Generator) -> bytes:
    """Such a scan blown up again."""
    how = int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    large = cv2.resize(_small(digit, rng), None, fx=10, fy=10, interpolation=how)
    return files.png(np.clip(large, 0, 255))


def envelope(digit: Digit, rng: np.random.Generator) -> bytes:
    """Cut out of a scanned envelope: grey, low contrast, rough edges, touching the border."""
    height = int(rng.uniform(30, 80))
    drawn = redraw(digit, height, height * rng.uniform(0.06, 0.12))
    grain = paper.texture(drawn.shape[0], drawn.shape[1], 1.5, rng)
    rough = np.clip(drawn + 0.15 * grain * (drawn > 0.05), 0, 1)
    pad = int(rng.integers(1, 6))
    ink = np.pad(rough, pad)
    ground = rng.uniform(170, 220)
    grey = ground - ink * rng.uniform(70, 140) + rng.normal(0, 3, ink.shape)
    return files.png(np.clip(grey, 0, 255))


def broken(digit: Digit, rng: np.random.Generator) -> bytes:
    """A line that the pen left out in two or three places."""
    side = 300
    height = int(rng.uniform(0.5, 0.8) * side)
    drawn = redraw(digit, height, height * rng.uniform(0.06, 0.1))
    for _ in range(int(rng.integers(2, 4))):
        row, column = rng.choice(np.argwhere(drawn > 0.5))
        gap = int(height * rng.uniform(0.03, 0.05)) + 1
        cv2.circle(drawn, (int(column), int(row)), gap, 0.0, -1)
    picture = paper.draw(
        paper.sheet(side, side, _pick(_PAPERS, rng)), place(drawn, side, side, rng), (30, 30, 40)
    )
    return files.jpeg(paper.camera(paper.light(picture, rng), rng, 2.5), rng)


def dirty(digit: Digit, rng: np.random.Generator) -> bytes:
    """Specks and dirt near the digit."""
    height, width = 400, 400
    ink = place(redraw(digit, int(rng.uniform(0.4, 0.7) * height), rng.uniform(14, 24)), height, width, rng)
    for _ in range(int(rng.integers(5, 20))):
        spot = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(ink, spot, int(rng.integers(1, 4)), float(rng.uniform(0.3, 1)), -1, cv2.LINE_AA)
    picture = paper.draw(paper.sheet(height, width, _pick(_PAPERS, rng)), ink, _pick(_INKS, rng))
    return files.jpeg(paper.camera(paper.light(picture, rng), rng), rng)


def askew(digit: Digit, rng: np.random.Generator) -> bytes:
    """A sheet that lies on a table, photographed from its foot."""
    side = 700
    ink = place(redraw(digit, int(rng.uniform(0.25, 0.5) * side), rng.uniform(14, 30)), side, side, rng)
    sheet = paper.sheet(side, side, _pick(_PAPERS, rng))
    sheet = paper.draw(sheet, ink * np.float32(0.92), _pick(_INKS, rng))
    table = paper.sheet(480, 640, _pick(_TABLES, rng))
    table += 4 * paper.texture(480, 640, 20, rng)[:, :, None]
    picture = paper.lay(sheet, table, paper.from_its_foot(sheet, table, rng))
    return files.jpeg(paper.camera(paper.light(picture, rng), rng), rng)


def held(digit: Digit, rng: np.random.Generator) -> bytes:
    """A sheet that a finger holds at its border."""
    height, width = 480, 640
    drawn = redraw(digit, int(rng.uniform(0.25, 0.5) * height), rng.uniform(8, 18))
    # Somewhere in the middle, where no finger lies on it.
    sheet = np.pad(place(drawn, 280, 280, rng), ((60, 140), (180, 180)))
    picture = paper.sheet(height, width, _pick(_PAPERS, rng))
    picture = paper.draw(picture, sheet * np.float32(0.92), _pick(_INKS, rng))
    picture = paper.draw(picture, paper.finger(height, width, rng), _pick(_SKINS, rng))
    return files.jpeg(paper.camera(paper.light(picture, rng), rng), rng)


def in_a_circle(digit: Digit, rng: np.random.Generator) -> bytes:
    """With a circle drawn around it."""
    return files.jpeg(_written(digit, rng, share=(0.2, 0.45), width=(0.06, 0.12), more=circled), rng)


def with_a_line_under_it(digit: Digit, rng: np.random.Generator) -> bytes:
    """With a line drawn under it, which doesn't touch it."""
    return files.jpeg(_written(digit, rng, share=(0.2, 0.6), width=(0.06, 0.12), more=underlined), rng)


FAMILIES: dict[str, Family] = {
    family.__name__.replace("_", " "): family
    for family in (
        photo,
        tilted,
        ruled,
        squared,
        on_a_table,
        in_shadow,
        cropped,
        pencil,
        blackboard,
        whiteboard,
        biro,
        felt_tip,
        canvas,
        transparent,
        small_scan,
        enlarged_scan,
        envelope,
        broken,
        dirty,
        askew,
        held,
        in_a_circle,
        with_a_line_under_it,
    )
}

ALSO_EMPTY = ["photo", "ruled", "squared", "on a table", "in shadow", "blackboard", "whiteboard", "dirty"]
"""Those that people photograph with nothing written on them as well."""


def _written(
    digit: Digit,
    rng: np.random.Generator,
    *,
    share: tuple[float, float],
    width: tuple[float, float],
    degrees: float = 3,
    lines: str = "",
    more: Callable[[Ink, float], Ink] | None = None,
) -> NDArray[np.uint8]:
    """A photograph: `share` is the digit's part of the sheet's height, `width` the pen's of the digit's.

    `lines` are printed on the sheet; `more` draws beside the digit, with a pen as wide.
    """
    rows, columns = (480, 640) if rng.random() < 0.5 else (640, 480)
    height = int(rng.uniform(*share) * min(rows, columns))
    pen = height * rng.uniform(*width)
    drawn: Ink = redraw(digit, height, pen)
    ink = tilt(more(drawn, pen) if more else drawn, rng.uniform(-degrees, degrees))
    shrink = min(1.0, 0.95 * rows / ink.shape[0], 0.95 * columns / ink.shape[1])
    ink = cv2.resize(ink, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    picture = paper.sheet(rows, columns, _pick(_PAPERS, rng))
    picture += 1.5 * paper.texture(rows, columns, 3, rng)[:, :, None]
    if lines:
        picture = paper.rules(picture, rng, squares=lines == "squared")
    picture = paper.draw(picture, place(ink, rows, columns, rng) * np.float32(0.92), _pick(_INKS, rng))
    return paper.camera(paper.light(picture, rng), rng)


def _small(digit: Digit, rng: np.random.Generator) -> NDArray[np.float32]:
    height = int(rng.choice([8, 16, 20]))
    large = trim(enlarge(digit, 160), 0.3)
    width = max(1, round(large.shape[1] * height / large.shape[0]))
    ink = np.pad(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), int(rng.integers(0, 3)))
    return np.asarray(255 - ink / max(float(ink.max()), 1e-6) * rng.uniform(180, 250), np.float32)


def _pick(colours: Sequence[paper.Colour], rng: np.random.Generator) -> paper.Colour:
    return colours[int(rng.integers(len(colours)))]
