"""Pen strokes: MNIST's digits redrawn along their skeletons, at any size and with a pen of any width."""

import cv2
import numpy as np
from numpy.typing import NDArray

Ink = NDArray[np.float32]
"""Share of each pixel that ink covers: float32 [h, w] in 0..1."""

Digit = NDArray[np.uint8]
"""MNIST's digit, light on dark: uint8 [28, 28]."""

# Structuring elements of homotopic thinning; each is rotated by 0, 90, 180 and 270 degrees.
_THINNING = (
    np.array([[-1, -1, -1], [0, 1, 0], [1, 1, 1]], np.int8),
    np.array([[0, -1, -1], [1, 1, -1], [0, 1, 0]], np.int8),
)


def enlarge(digit: Digit, height: int) -> Ink:
    """Enlarge the digit without its margins to `height` pixels, with sharp edges."""
    cut = trim(np.asarray(digit / 255, np.float32), 40.5 / 255)
    scale = height / cut.shape[0]
    padded = np.pad(cut, 1)
    size = (max(1, round(padded.shape[1] * scale)), max(1, round(padded.shape[0] * scale)))
    large = cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC)
    if scale > 1:
        large = cv2.GaussianBlur(large, (0, 0), 0.35 * scale)
    sharp = (large - 0.5) * max(1.0, 0.5 * scale) + 0.5
    return np.asarray(np.clip(sharp, 0, 1), np.float32)


def skeletonize(ink: Ink) -> NDArray[np.uint8]:
    """Return the skeleton of the strokes, one pixel wide: uint8 [h, w] of 0 and 1."""
    mask = np.pad((ink > 0.5).astype(np.uint8), 1)
    while True:
        before = int(mask.sum())
        for element in _THINNING:
            for quarter in range(4):
                mask -= cv2.morphologyEx(mask, cv2.MORPH_HITMISS, np.rot90(element, quarter))
        if int(mask.sum()) == before:
            return mask[1:-1, 1:-1]


def stroke_width(digit: Digit) -> float:
    """Return the mean width of the digit's strokes, as a share of its height."""
    ink = enlarge(digit, 160)
    return float((ink > 0.5).sum() / max(1, int(skeletonize(np.pad(ink, 1)).sum())) / 160)


def redraw(digit: Digit, height: int, width: float) -> Ink:
    """Redraw the digit along its skeleton with a pen `width` pixels wide; an empty digit stays empty."""
    if not digit.any():
        return np.zeros((height, height), np.float32)
    fine = enlarge(digit, min(height, 160))
    scale = height / fine.shape[0]
    skeleton = np.pad(skeletonize(fine), 8)
    # Distance transform, thresholded at half the pen's width: interpolated distances give smooth edges.
    distance = cv2.distanceTransform(1 - skeleton, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = cv2.GaussianBlur(distance, (0, 0), 1.2)
    size = (round(skeleton.shape[1] * scale), round(skeleton.shape[0] * scale))
    distance = cv2.resize(distance, size, interpolation=cv2.INTER_CUBIC) * scale
    margin = int(width / 2) + 2
    distance = cv2.copyMakeBorder(distance, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=1e6)
    # 0.9 * scale compensates for the blur, which raises the distance on the skeleton above 0.
    return np.asarray(np.clip((width / 2 + 0.9 * scale - distance) + 0.5, 0, 1), np.float32)


def encircle(ink: Ink, pen: float) -> Ink:
    """Draw a circle around the ink with a pen `pen` pixels wide."""
    if not ink.any():
        return ink
    # Radius from the centre to a corner, and from there to the circle.
    radius = 0.5 * float(np.hypot(*ink.shape)) + 1.5 * pen
    side = 2 * round(radius + pen)
    ring = np.zeros((side, side), np.float32)
    cv2.circle(ring, (side // 2, side // 2), round(radius), 1.0, max(1, round(pen)), cv2.LINE_AA)
    top, left = (side - ink.shape[0]) // 2, (side - ink.shape[1]) // 2
    ring[top : top + ink.shape[0], left : left + ink.shape[1]] += ink
    return np.minimum(ring, 1)


def underline(ink: Ink, pen: float) -> Ink:
    """Draw a line under the ink, a fifth longer on each side, with a pen `pen` pixels wide."""
    if not ink.any():
        return ink
    overhang = ink.shape[1] // 5 + round(pen)
    sheet = np.pad(ink, ((0, round(4 * pen)), (overhang, overhang)))
    row, end = round(ink.shape[0] + 2 * pen), sheet.shape[1] - round(pen)
    cv2.line(sheet, (round(pen), row), (end, row), 1.0, max(1, round(pen)), cv2.LINE_AA)
    return sheet


def place(ink: Ink, height: int, width: int, rng: np.random.Generator) -> Ink:
    """Place the ink at a random position on an empty sheet, entirely on it."""
    sheet = np.zeros((height, width), np.float32)
    top = int(rng.integers(0, max(1, height - ink.shape[0])))
    left = int(rng.integers(0, max(1, width - ink.shape[1])))
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink[: height - top, : width - left]
    return sheet


def rotate(ink: Ink, degrees: float) -> Ink:
    """Rotate the ink about its centre, on a sheet that holds all of it."""
    if not ink.any():
        return ink
    height, width = ink.shape
    pad = int(0.25 * max(height, width))
    padded = cv2.copyMakeBorder(ink, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    center = (padded.shape[1] / 2, padded.shape[0] / 2)
    rotated = cv2.warpAffine(padded, cv2.getRotationMatrix2D(center, degrees, 1), padded.shape[::-1])
    return trim(np.asarray(rotated, np.float32), 0.05)


def trim(ink: Ink, least: float) -> Ink:
    """Crop the ink to the rows and columns with a pixel above `least`."""
    if not ink.any():
        return ink
    rows, columns = np.flatnonzero(ink.max(axis=1) > least), np.flatnonzero(ink.max(axis=0) > least)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
