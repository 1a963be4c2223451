"""Surfaces: ink, and what is printed beneath it, as a picture's file."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import cv2
import numpy as np

from benchmarks.handwriting import files, paper
from benchmarks.handwriting.pen import Ink

T = TypeVar("T")

Surface = Callable[[Ink, Ink | None, np.random.Generator], bytes]
"""Turns ink, and printed lines of the same shape or None, into a file."""

_PAPERS = [(250, 250, 248), (244, 236, 214), (225, 225, 222), (238, 232, 222), (225, 235, 238)]
_INKS = [(25, 25, 30), (30, 45, 130), (150, 30, 35), (25, 90, 50), (70, 70, 80)]
_PRINTS = [(30, 30, 30), (120, 120, 125), (150, 180, 220), (215, 140, 120), (110, 170, 130)]
_TABLES = [(90, 60, 40), (40, 40, 45), (150, 120, 90)]


def scan(ink: Ink, printed: Ink | None, rng: np.random.Generator) -> bytes:
    """A flatbed scan: even light, little noise."""
    picture = _page(ink, printed, _white(rng), pick(_INKS, rng), rng)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 0.8)) + rng.normal(0, 2, picture.shape)
    pixels = np.clip(picture, 0, 255)
    return files.jpeg(pixels.astype(np.uint8), rng) if rng.random() < 0.5 else files.png(pixels)


def photo(ink: Ink, printed: Ink | None, rng: np.random.Generator) -> bytes:
    """A photograph: a lamp at one side, sometimes a shadow; blur, noise and JPEG."""
    picture = _page(ink, printed, pick(_PAPERS, rng), pick(_INKS, rng), rng)
    picture += 1.5 * paper.texture(ink.shape[0], ink.shape[1], 3, rng)[:, :, None]
    if rng.random() < 0.2:
        picture = paper.cast_shadow(picture, rng)
    return files.jpeg(paper.camera(paper.illuminate(picture, rng), rng), rng)


def screen(ink: Ink, printed: Ink | None, rng: np.random.Generator) -> bytes:
    """A drawing on a screen: dark on white, or white on black."""
    dark = rng.random() < 0.5
    picture = paper.sheet(ink.shape[0], ink.shape[1], (0, 0, 0) if dark else (255, 255, 255))
    if printed is not None:
        picture = paper.draw(picture, printed, (120, 120, 120))
    return files.png(paper.draw(picture, ink, (255, 255, 255) if dark else (0, 0, 0)))


def transparent(ink: Ink, printed: Ink | None, rng: np.random.Generator) -> bytes:
    """A web canvas without a background, in any pen's colour."""
    rgba = np.zeros((*ink.shape, 4), np.float32)
    rgba[:, :, :3] = pick([*_INKS, (0, 0, 0), (255, 255, 255)], rng)
    rgba[:, :, 3] = 255 * (ink if printed is None else np.maximum(ink, printed))
    return files.png(rgba)


def pencil(ink: Ink, printed: Ink | None, rng: np.random.Generator) -> bytes:
    """Grey pencil on a sheet, photographed obliquely on a table, in uneven light."""
    grain = np.clip(0.8 + 0.25 * paper.texture(ink.shape[0], ink.shape[1], 2, rng), 0, 1)
    grey = rng.uniform(95, 150)
    picture = _page(ink * grain, printed, pick(_PAPERS[:2], rng), (grey, grey, grey), rng)
    height, width = ink.shape
    table = paper.sheet(height, width, pick(_TABLES, rng))
    table += 6 * paper.texture(height, width, 20, rng)[:, :, None]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    shift = rng.uniform(-0.08, 0.08, (4, 2))
    if rng.random() < 0.6:
        # Corners outside the frame hide the table.
        shift = abs(shift) * np.sign(corners - corners.mean(axis=0))
    moved = corners + (shift * height).astype(np.float32)
    picture = paper.project(picture, table, cv2.getPerspectiveTransform(corners, moved))
    if rng.random() < 0.4:
        picture = paper.cast_shadow(picture, rng)
    return files.jpeg(paper.camera(paper.illuminate(picture, rng, 1.2), rng), rng)


def cheque(ink: Ink, printed: Ink | None, rng: np.random.Generator) -> bytes:
    """A grey scan of a security pattern: low contrast, rough strokes."""
    height, width = ink.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = np.sin(0.9 * y + 3 * np.sin(x / rng.uniform(6, 15))) + np.sin(x / rng.uniform(2, 4) + y / 5)
    grey = (
        rng.uniform(185, 230)
        + rng.uniform(0, 7) * waves
        + rng.uniform(2, 8) * paper.texture(height, width, 12, rng)
    )
    if printed is not None:
        grey = grey - printed * rng.uniform(40, 110)
    rough = np.clip(ink * (1 + 0.2 * paper.texture(height, width, 2, rng)), 0, 1)
    grey = grey * (1 - rough) + rough * rng.uniform(20, 90)
    return files.png(np.clip(cv2.GaussianBlur(grey, (0, 0), 0.6) + rng.normal(0, 3, ink.shape), 0, 255))


def anywhere(ink: Ink, printed: Ink | None, rng: np.random.Generator) -> bytes:
    """A photograph, a scan or a screen."""
    return pick([photo, photo, scan, scan, screen], rng)(ink, printed, rng)


def on_paper(ink: Ink, printed: Ink | None, rng: np.random.Generator) -> bytes:
    """A photograph or a scan."""
    return pick([photo, scan], rng)(ink, printed, rng)


def margins(ink: Ink, unit: float, rng: np.random.Generator, low: float = 0.3, high: float = 2) -> Ink:
    """Add margins of `low` to `high` times `unit` pixels, each side another one."""
    top, bottom, left, right = (unit * np.exp(rng.uniform(np.log(low), np.log(high), 4))).astype(int)
    return np.pad(ink, ((top, bottom), (left, right)))


def pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    """Return a random one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def _page(
    ink: Ink, printed: Ink | None, colour: paper.Colour, pen: paper.Colour, rng: np.random.Generator
) -> paper.Picture:
    picture = paper.sheet(ink.shape[0], ink.shape[1], colour)
    if printed is not None:
        picture = paper.draw(picture, printed * np.float32(rng.uniform(0.5, 0.95)), pick(_PRINTS, rng))
    return paper.draw(picture, ink * np.float32(rng.uniform(0.85, 0.98)), pen)


def _white(rng: np.random.Generator) -> paper.Colour:
    level = rng.uniform(235, 255)
    return (level, level, level - rng.uniform(0, 8))


def ruling(shape: tuple[int, ...], rows: float, columns: float | None, offset: float = 0) -> Ink:
    """Print lines `rows` pixels apart, and, for squares, others `columns` apart."""
    printed = np.zeros(shape, np.float32)
    for y in np.arange(offset, shape[0], rows):
        cv2.line(printed, (0, round(y)), (shape[1], round(y)), 1, 1)
    for x in np.arange(0, shape[1], columns) if columns else ():
        cv2.line(printed, (round(x), 0), (round(x), shape[0]), 1, 1)
    return printed
