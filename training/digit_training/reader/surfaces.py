"""Surfaces of pages: paper, its print, light and the camera, as grey levels of 0..255."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_training.drawing.synthetic import draw_polyline
from digit_training.reader.handwriting import Ink

Levels = NDArray[np.float32]
"""Grey levels, float32 [h, w] in 0..255."""


@dataclass
class Sheet:
    """Background of the writing."""

    printed: Ink
    """Printed lines and boxes."""
    scene: Levels | None = None
    """Picture in place of paper, such as a wall; None for paper."""


def furnish(sheet: Sheet, rng: np.random.Generator, *, is_written: bool) -> None:
    """Print rules, squares, a frame or guilloche on the sheet, or put a scene in its place."""
    shape = sheet.printed.shape
    if not is_written or rng.random() < 0.03:
        if rng.random() < 0.75:
            sheet.scene = _SCENES[int(rng.integers(len(_SCENES)))](shape, rng)
        return
    kind = rng.random()
    if kind < 0.12:
        _rule(sheet.printed, rng)
    elif kind < 0.2:
        _square(sheet.printed, rng)
    elif kind < 0.24:
        _frame(sheet.printed, rng)
    elif kind < 0.32:
        waves = 0.5 + 0.5 * np.sin(_waves(shape, rng))
        np.maximum(sheet.printed, (waves * rng.uniform(0.05, 0.35)).astype(np.float32), out=sheet.printed)
    elif kind < 0.35:
        _underline(sheet.printed, rng)


def photograph(ink: Ink, sheet: Sheet, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the grey page: ink on the sheet in some light, through a scanner, a screen or a camera."""
    kind = rng.random()
    if sheet.scene is None and kind < 0.2:
        return _screen(ink, sheet, rng)
    is_photo = kind < 0.65
    if sheet.scene is not None:
        levels = sheet.scene
    else:
        paper = rng.uniform(170, 255) if rng.random() < 0.75 else rng.uniform(60, 200)
        grain = rng.uniform(0, 6 if is_photo else 2)
        levels = paper + grain * noise(ink.shape, rng.uniform(1, 12), rng)
        if rng.random() < 0.12:
            levels += rng.uniform(4, 25) * noise(ink.shape, rng.uniform(15, 80), rng)
    levels = levels * (1 - rng.uniform(0.1, 0.95) * sheet.printed)
    contrast = rng.uniform(0.55, 1) if rng.random() < 0.75 else rng.uniform(0.15, 0.55)
    if rng.random() < 0.2:
        ink = ink * np.clip(0.85 + rng.uniform(0.1, 0.4) * noise(ink.shape, rng.uniform(1, 2.5), rng), 0, 1)
    levels = levels * (1 - contrast * ink)
    if rng.random() < 0.08:
        # Chalk on a board.
        levels = 255 - levels
    return capture(levels, rng, is_photo=is_photo)


def capture(levels: Levels, rng: np.random.Generator, *, is_photo: bool) -> NDArray[np.uint8]:
    """Return the grey levels as a camera in some light, or a scanner, sees them."""
    if is_photo:
        levels = _light(levels, rng)
    blur = rng.uniform(0.3, 1.3) if is_photo else rng.uniform(0.2, 0.8)
    blurred = cv2.GaussianBlur(levels, (0, 0), blur)
    noisy = blurred + rng.normal(0, rng.uniform(0.5, 6 if is_photo else 3), levels.shape)
    pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        pixels = _lose_resolution(pixels, rng)
    return _compress(pixels, rng) if rng.random() < 0.3 else pixels


def _screen(ink: Ink, sheet: Sheet, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw in one flat colour on another."""
    paper, pen = (255.0, rng.uniform(0, 120)) if rng.random() < 0.5 else (0.0, rng.uniform(130, 255))
    if rng.random() < 0.25:
        paper = paper * 0.8 + 25
    levels = paper + (pen - paper) * np.maximum(ink, 0.5 * sheet.printed)
    return np.asarray(np.clip(levels, 0, 255), np.uint8)


def _light(levels: Levels, rng: np.random.Generator) -> Levels:
    """Light from one side, sometimes a shadow's edge, a crease or a table beside the sheet."""
    rows, columns = levels.shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    levels = levels * (1 + rng.uniform(-0.25, 0.25) * along)
    if rng.random() < 0.2:
        edge = (x * np.cos(2 * angle) + y * np.sin(2 * angle) - rng.uniform(-0.8, 0.8)) * 60
        levels = levels * (
            1 - rng.uniform(0.1, 0.6) / (1 + np.exp(-np.clip(edge / rng.uniform(1, 30), -30, 30)))
        )
    if rng.random() < 0.1:
        for _ in range(int(rng.integers(1, 5))):
            slope = rng.uniform(0, 2 * np.pi)
            distance = x * np.cos(slope) + y * np.sin(slope) - rng.uniform(-1, 1)
            fold = np.exp(-np.square(distance * rng.uniform(20, 80))) - 0.6 * np.exp(
                -np.square((distance - 0.04) * rng.uniform(20, 80))
            )
            levels = levels * (1 + rng.uniform(-0.25, 0.25) * fold)
    if rng.random() < 0.14:
        table = x * np.cos(3 * angle) + y * np.sin(3 * angle) > rng.uniform(0.6, 1.1)
        levels = np.where(table, rng.uniform(20, 160) + 8 * noise(levels.shape, 3, rng), levels)
    return np.asarray(levels, np.float32)


def _lose_resolution(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = pixels.shape
    factor = rng.uniform(1.3, 2.2)
    small = cv2.resize(pixels, (int(columns / factor), int(rows / factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR), np.uint8)


def _compress(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def noise(shape: tuple[int, ...], size: float, rng: np.random.Generator) -> Levels:
    """Return smooth noise of about `size` pixels, with a standard deviation of 1 or a little less."""
    small = rng.standard_normal((int(shape[0] / size) + 3, int(shape[1] / size) + 3), np.float32)
    return np.asarray(cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def _waves(shape: tuple[int, ...], rng: np.random.Generator) -> Levels:
    """Return the phase of guilloche: lines that bend in waves."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bend = rng.uniform(0, 4) * np.sin(along / rng.uniform(5, 25))
    return np.asarray(across * rng.uniform(0.5, 1.6) + bend, np.float32)


def _rule(printed: Ink, rng: np.random.Generator) -> None:
    """Print parallel lines."""
    rows, columns = printed.shape
    gap, slope, thickness = rng.uniform(14, 60), rng.normal(0, 0.02), int(rng.integers(1, 3))
    for y in np.arange(rng.uniform(-gap, 0), rows + gap, gap):
        _line(printed, (0, y), (columns, y + slope * columns), thickness)


def _square(printed: Ink, rng: np.random.Generator) -> None:
    """Print squared paper."""
    rows, columns = printed.shape
    gap, slope = rng.uniform(9, 45), rng.normal(0, 0.02)
    for y in np.arange(rng.uniform(-gap, 0), rows + gap, gap):
        _line(printed, (0, y), (columns, y + slope * columns), 1)
    for x in np.arange(rng.uniform(-gap, 0), columns + gap, gap):
        _line(printed, (x, 0), (x - slope * rows, rows), 1)


def _frame(printed: Ink, rng: np.random.Generator) -> None:
    """Print a large frame or the lines of a table."""
    rows, columns = printed.shape
    thickness = int(rng.integers(1, 5))
    for x in rng.uniform(0, columns, int(rng.integers(1, 4))):
        _line(printed, (x, -5), (x, rows + 5), thickness)
    for y in rng.uniform(0, rows, int(rng.integers(0, 4))):
        _line(printed, (-5, y), (columns + 5, y), thickness)


def _underline(printed: Ink, rng: np.random.Generator) -> None:
    rows, columns = printed.shape
    y, left = rng.uniform(0.3, 1) * rows, rng.uniform(0, 0.5) * columns
    end = left + rng.uniform(0.3, 1) * columns
    _line(printed, (left, y), (end, y + rng.normal(0, 3)), int(rng.integers(1, 4)))


def _line(canvas: Ink, start: tuple[float, float], end: tuple[float, float], thickness: int) -> None:
    draw_polyline(canvas, np.array([start, end]), thickness)


def _bricks(shape: tuple[int, ...], rng: np.random.Generator) -> Levels:
    """Draw a wall, tiles or a keyboard: rows of rectangles with joints."""
    rows, columns = shape
    height, width = rng.uniform(8, 50), rng.uniform(12, 110)
    joint, shift = int(rng.integers(1, 7)), rng.uniform(0, 0.5)
    base, spread = rng.uniform(40, 220), rng.uniform(0, 25)
    levels = np.full(shape, rng.uniform(20, 240), np.float32)
    for row, top in enumerate(np.arange(-height * rng.random(), rows, height)):
        for left in np.arange(-width * (rng.random() * 0.2 + shift * (row % 2)), columns, width):
            corner = int(left + width) - joint, int(top + height) - joint
            cv2.rectangle(levels, (int(left), int(top)), corner, base + spread * rng.normal(), -1)
    return levels + rng.uniform(0, 12) * noise(shape, rng.uniform(1, 5), rng)


def _stripes(shape: tuple[int, ...], rng: np.random.Generator) -> Levels:
    """Draw fabric, a fence, wood or a barcode."""
    if rng.random() < 0.4:
        widths = rng.integers(1, 9, 200)
        bars = np.repeat(np.arange(200) % 2, widths)[: shape[1]].astype(np.float32)
        levels = np.tile(rng.uniform(180, 255) - rng.uniform(60, 200) * bars, (shape[0], 1)).astype(
            np.float32
        )
        low, high = sorted(rng.uniform(0, shape[0], 2).astype(int).tolist())
        if rng.random() < 0.5:
            levels[:low], levels[high:] = 250, 250
        return levels
    phase = _waves(shape, rng) * rng.uniform(0.2, 1.5)
    if rng.random() < 0.4:
        phase = np.maximum(np.sin(phase), np.sin(_waves(shape, rng)))
    return np.asarray(
        rng.uniform(80, 200) + rng.uniform(10, 70) * np.sin(phase) + 5 * noise(shape, 2, rng), np.float32
    )


def _blotches(shape: tuple[int, ...], rng: np.random.Generator) -> Levels:
    """Draw noise of several sizes, as of stone, leaves, cloth or clouds, soft or with hard edges."""
    grain = sum(
        rng.uniform(0.3, 1) * noise(shape, size, rng)
        for size in np.exp(rng.uniform(0, 4, int(rng.integers(1, 4))))
    )
    if rng.random() < 0.4:
        grain = np.tanh(rng.uniform(1, 8) * (grain - rng.uniform(-1, 1)))
    return np.asarray(rng.uniform(60, 200) + rng.uniform(5, 60) * grain, np.float32)


def _things(shape: tuple[int, ...], rng: np.random.Generator) -> Levels:
    """Draw objects: polygons, discs, rings and bars, some shaded, some with outlines."""
    rows, columns = shape
    levels = np.full(shape, rng.uniform(30, 240), np.float32)
    for _ in range(int(rng.integers(2, 14))):
        level, outline = rng.uniform(0, 255), rng.random() < 0.35
        thickness = int(rng.integers(1, 9)) if outline else -1
        center = rng.uniform(0, 1, 2) * (columns, rows)
        size = np.exp(rng.uniform(1.5, 4.5, 2))
        kind = rng.random()
        if kind < 0.4:
            angle = rng.uniform(0, 180)
            cv2.ellipse(
                levels, (center.astype(int).tolist(), size.tolist(), angle), level, thickness, cv2.LINE_AA
            )
        elif kind < 0.75:
            box = cv2.boxPoints((center.tolist(), size.tolist(), rng.normal(0, 20))).astype(np.int32)
            if outline:
                cv2.polylines(levels, [box], True, level, thickness, cv2.LINE_AA)
            else:
                cv2.fillPoly(levels, [box], level, cv2.LINE_AA)
        else:
            corners = (center + rng.normal(0, 1, (int(rng.integers(3, 7)), 2)) * size).astype(np.int32)
            cv2.fillPoly(levels, [corners], level, cv2.LINE_AA)
    return levels + rng.uniform(0, 15) * noise(shape, rng.uniform(1, 30), rng)


def _creases(shape: tuple[int, ...], rng: np.random.Generator) -> Levels:
    """Crumple a blank sheet: facets of other slopes, with bright and dark edges."""
    points = rng.uniform(-0.2, 1.2, (int(rng.integers(4, 20)), 2)) * (shape[1], shape[0])
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    tilts = rng.normal(0, rng.uniform(0.05, 0.6), (len(points), 2))
    planes = np.stack(
        [(x - px) * tx + (y - py) * ty for (px, py), (tx, ty) in zip(points, tilts, strict=True)]
    )
    height = planes.max(axis=0) if rng.random() < 0.5 else np.sort(planes, axis=0)[len(points) // 2]
    light = cv2.Sobel(np.asarray(height, np.float32), cv2.CV_32F, 1, 1, ksize=3) + cv2.Sobel(
        np.asarray(height, np.float32), cv2.CV_32F, 1, 0, ksize=3
    )
    return np.asarray(
        rng.uniform(150, 235) + rng.uniform(3, 25) * light + 3 * noise(shape, 2, rng), np.float32
    )


_SCENES: tuple[Callable[[tuple[int, ...], np.random.Generator], Levels], ...] = (
    _bricks,
    _stripes,
    _blotches,
    _things,
    _creases,
)
