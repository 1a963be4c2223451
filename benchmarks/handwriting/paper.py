"""Sheets, boards and cameras: ink becomes a picture of it. Pictures are float32 [h, w, 3], 0..255, RGB."""

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.handwriting.pen import Ink

Picture = NDArray[np.float32]

Colour = tuple[float, float, float]


def sheet(height: int, width: int, colour: Colour) -> Picture:
    """A sheet of one colour."""
    return np.full((height, width, 3), colour, np.float32)


def draw(picture: Picture, ink: Ink, colour: Colour) -> Picture:
    """Ink of this colour on the picture."""
    cover = ink[:, :, None]
    return np.asarray(picture * (1 - cover) + np.array(colour, np.float32) * cover, np.float32)


def texture(height: int, width: int, size: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blotches about `size` pixels wide, mean 0 and standard deviation 1: float32 [h, w]."""
    small = rng.normal(size=(int(height / size) + 3, int(width / size) + 3)).astype(np.float32)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray((large - large.mean()) / max(float(large.std()), 1e-6), np.float32)


def light(picture: Picture, rng: np.random.Generator, strength: float = 1.0) -> Picture:
    """Shade across the sheet and a vignette, as from a lamp at one side and a lens."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = 1 + strength * rng.uniform(0, 0.3) * (x * np.cos(angle) + y * np.sin(angle))
    vignette = 1 - strength * rng.uniform(0, 0.2) * (x * x + y * y)
    return np.asarray(picture * (slope * vignette / max(float(slope.max()), 1))[:, :, None], np.float32)


def shadow(picture: Picture, rng: np.random.Generator) -> Picture:
    """The shadow of a hand or of something with corners, or the edge of a larger one."""
    height, width = picture.shape[:2]
    dark = np.zeros((height, width), np.float32)
    kind = rng.random()
    if kind < 0.3:
        corners = rng.uniform(-0.1, 1.1, (int(rng.integers(3, 6)), 2)) * (width, height)
        cv2.fillConvexPoly(dark, cv2.convexHull(corners.astype(np.int32)), 1.0)
    elif kind < 0.65:
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0.6, 1.1) * height))
        axes = (int(rng.uniform(100, 250)), int(rng.uniform(100, 260)))
        cv2.ellipse(dark, centre, axes, rng.uniform(-40, 40), 0, 360, 1.0, -1)
    else:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        angle = rng.uniform(0, 2 * np.pi)
        beyond = (x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle)
        dark[beyond > rng.uniform(-150, 150)] = 1
    soft = cv2.GaussianBlur(dark, (0, 0), rng.uniform(1, 30))
    return np.asarray(picture * (1 - rng.uniform(0.15, 0.45) * soft)[:, :, None], np.float32)


def lay(picture: Picture, table: Picture, how: NDArray[np.float64]) -> Picture:
    """The picture on the table, where this projection, float64 [3, 3], has it."""
    size = table.shape[1::-1]
    cover, laid = (cv2.warpPerspective(part, how, size) for part in (np.ones_like(picture), picture))
    return np.asarray(table * (1 - cover) + laid, np.float32)


def from_its_foot(picture: Picture, table: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """The projection by which it gets narrower towards its head, with some of the table beside it."""
    (rows, columns), (height, width) = picture.shape[:2], table.shape[:2]
    aside = rng.uniform(0.02, 0.22) * width
    corners = [[0, 0], [columns, 0], [columns, rows], [0, rows]]
    seen = np.array(
        [[aside, 0.06 * height], [width - aside, 0.06 * height], [width, height], [0, height]], np.float32
    )
    seen += rng.uniform(-0.03, 0.03, (4, 2)).astype(np.float32) * width
    return np.asarray(cv2.getPerspectiveTransform(np.array(corners, np.float32), seen), np.float64)


def finger(height: int, width: int, rng: np.random.Generator) -> Ink:
    """Where a finger that comes from the foot of a picture covers it: float32 [h, w] in 0..1."""
    cover = np.zeros((height, width), np.float32)
    tip = (int(rng.uniform(0, width)), height)
    axes = (int(rng.uniform(0.06, 0.09) * width), int(rng.uniform(0.15, 0.27) * height))
    cv2.ellipse(cover, tip, axes, rng.uniform(-20, 20), 0, 360, 1.0, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(cover, (0, 0), 2), np.float32)


def camera(picture: Picture, rng: np.random.Generator, noise: float = 4.0) -> NDArray[np.uint8]:
    """Blur, sensor noise and eight bits: uint8 [h, w, 3]."""
    blurred = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.5))
    noisy = blurred + rng.normal(0, rng.uniform(0.3, 1) * noise, picture.shape)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def rules(picture: Picture, rng: np.random.Generator, *, squares: bool) -> Picture:
    """Printed lines across the sheet, slightly askew, and down it for squared paper."""
    height, width = picture.shape[:2]
    lines = np.zeros((height, width), np.float32)
    gap = rng.uniform(18, 30) if squares else rng.uniform(35, 60)
    lean = rng.uniform(-0.03, 0.03)
    for position in np.arange(-width * 0.05, height * 1.05, gap):
        ends = (0, int(position)), (width, int(position + lean * width))
        cv2.line(lines, *ends, 1.0, int(rng.integers(1, 3)), cv2.LINE_AA)
    if squares:
        for position in np.arange(-height * 0.05, width * 1.05, gap):
            ends = (int(position), 0), (int(position - lean * height), height)
            cv2.line(lines, *ends, 1.0, 1, cv2.LINE_AA)
    colour = (rng.uniform(100, 170), rng.uniform(140, 190), rng.uniform(190, 230))
    return draw(picture, lines * np.float32(rng.uniform(0.5, 0.9)), colour)
