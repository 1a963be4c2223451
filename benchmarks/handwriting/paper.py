"""Photographs of ink: sheets, light, shadows and cameras. Pictures are RGB float32 [h, w, 3] in 0..255."""

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.handwriting.pen import Ink

Picture = NDArray[np.float32]

Colour = tuple[float, float, float]


def sheet(height: int, width: int, colour: Colour) -> Picture:
    """Return a sheet of one colour."""
    return np.full((height, width, 3), colour, np.float32)


def draw(picture: Picture, ink: Ink, colour: Colour) -> Picture:
    """Blend ink of this colour with the picture."""
    alpha = ink[:, :, None]
    return np.asarray(picture * (1 - alpha) + np.array(colour, np.float32) * alpha, np.float32)


def texture(height: int, width: int, size: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return smooth noise of about `size` pixels, mean 0, standard deviation 1: float32 [h, w]."""
    small = rng.normal(size=(int(height / size) + 3, int(width / size) + 3)).astype(np.float32)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray((large - large.mean()) / max(float(large.std()), 1e-6), np.float32)


def illuminate(picture: Picture, rng: np.random.Generator, strength: float = 1.0) -> Picture:
    """Multiply by a linear shade, as from a lamp at one side, and by a lens's vignette."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = 1 + strength * rng.uniform(0, 0.3) * (x * np.cos(angle) + y * np.sin(angle))
    vignette = 1 - strength * rng.uniform(0, 0.2) * (x * x + y * y)
    return np.asarray(picture * (slope * vignette / max(float(slope.max()), 1))[:, :, None], np.float32)


def cast_shadow(picture: Picture, rng: np.random.Generator) -> Picture:
    """Cast the shadow of a polygon or of a hand, or a shadow that covers one side of the picture."""
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


def project(picture: Picture, table: Picture, homography: NDArray[np.float64]) -> Picture:
    """Project the picture onto the table by a homography, float64 [3, 3]."""
    size = table.shape[1::-1]
    parts = (np.ones_like(picture), picture)
    alpha, projected = (cv2.warpPerspective(part, homography, size) for part in parts)
    return np.asarray(table * (1 - alpha) + projected, np.float32)


def oblique_view(picture: Picture, table: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a homography that narrows the picture towards its top, beside the table: float64 [3, 3]."""
    (rows, columns), (height, width) = picture.shape[:2], table.shape[:2]
    margin = rng.uniform(0.02, 0.22) * width
    corners = [[0, 0], [columns, 0], [columns, rows], [0, rows]]
    projected = np.array(
        [[margin, 0.06 * height], [width - margin, 0.06 * height], [width, height], [0, height]], np.float32
    )
    projected += rng.uniform(-0.03, 0.03, (4, 2)).astype(np.float32) * width
    return np.asarray(cv2.getPerspectiveTransform(np.array(corners, np.float32), projected), np.float64)


def finger(height: int, width: int, rng: np.random.Generator) -> Ink:
    """Return the share that a finger at the picture's bottom covers of each pixel: float32 [h, w] in 0..1."""
    cover = np.zeros((height, width), np.float32)
    tip = (int(rng.uniform(0, width)), height)
    axes = (int(rng.uniform(0.06, 0.09) * width), int(rng.uniform(0.15, 0.27) * height))
    cv2.ellipse(cover, tip, axes, rng.uniform(-20, 20), 0, 360, 1.0, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(cover, (0, 0), 2), np.float32)


def camera(picture: Picture, rng: np.random.Generator, noise: float = 4.0) -> NDArray[np.uint8]:
    """Add blur and sensor noise, and quantise: uint8 [h, w, 3]."""
    blurred = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.5))
    noisy = blurred + rng.normal(0, rng.uniform(0.3, 1) * noise, picture.shape)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def draw_lines(picture: Picture, rng: np.random.Generator, *, squares: bool) -> Picture:
    """Draw printed lines across the sheet, slightly oblique, and down it for squared paper."""
    height, width = picture.shape[:2]
    lines = np.zeros((height, width), np.float32)
    gap = rng.uniform(18, 30) if squares else rng.uniform(35, 60)
    slope = rng.uniform(-0.03, 0.03)
    for position in np.arange(-width * 0.05, height * 1.05, gap):
        ends = (0, int(position)), (width, int(position + slope * width))
        cv2.line(lines, *ends, 1.0, int(rng.integers(1, 3)), cv2.LINE_AA)
    if squares:
        for position in np.arange(-height * 0.05, width * 1.05, gap):
            ends = (int(position), 0), (int(position - slope * height), height)
            cv2.line(lines, *ends, 1.0, 1, cv2.LINE_AA)
    colour = (rng.uniform(100, 170), rng.uniform(140, 190), rng.uniform(190, 230))
    return draw(picture, lines * np.float32(rng.uniform(0.5, 0.9)), colour)
