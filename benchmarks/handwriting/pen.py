"""A digit of MNIST as lines that a pen could have drawn, at any size."""

import cv2
import numpy as np
from numpy.typing import NDArray

Ink = NDArray[np.float32]
"""How much of each pixel is covered with ink: float32 [h, w] in 0..1."""

Digit = NDArray[np.uint8]
"""One of MNIST's: uint8 [28, 28]."""

_CORNERS = (
    np.array([[-1, -1, -1], [0, 1, 0], [1, 1, 1]], np.int8),
    np.array([[0, -1, -1], [1, 1, -1], [0, 1, 0]], np.int8),
)


def enlarge(digit: Digit, height: int) -> Ink:
    """The digit with its margins cut off, `height` pixels high, with crisp edges."""
    cut = trim(np.asarray(digit / 255, np.float32), 40.5 / 255)
    scale = height / cut.shape[0]
    padded = np.pad(cut, 1)
    size = (max(1, round(padded.shape[1] * scale)), max(1, round(padded.shape[0] * scale)))
    large = cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC)
    if scale > 1:
        large = cv2.GaussianBlur(large, (0, 0), 0.35 * scale)
    sharp = (large - 0.5) * max(1.0, 0.5 * scale) + 0.5
    return np.asarray(np.clip(sharp, 0, 1), np.float32)


def thin(ink: Ink) -> NDArray[np.uint8]:
    """The middle line of every stroke, one pixel wide: uint8 [h, w] of 0 and 1."""
    mask = np.pad((ink > 0.5).astype(np.uint8), 1)
    while True:
        before = int(mask.sum())
        for corner in _CORNERS:
            for turn in range(4):
                mask -= cv2.morphologyEx(mask, cv2.MORPH_HITMISS, np.rot90(corner, turn))
        if int(mask.sum()) == before:
            return mask[1:-1, 1:-1]


def stroke(digit: Digit) -> float:
    """How wide the digit's strokes are, as a share of its height."""
    ink = enlarge(digit, 160)
    return float((ink > 0.5).sum() / max(1, thin(np.pad(ink, 1)).sum()) / 160)


def redraw(digit: Digit, height: int, width: float) -> Ink:
    """The digit drawn anew along its middle lines with a pen `width` pixels wide; of none, nothing."""
    if not digit.any():
        return np.zeros((height, height), np.float32)
    fine = enlarge(digit, min(height, 160))
    scale = height / fine.shape[0]
    line = np.pad(thin(fine), 8)
    # Half the pen's width around the line, measured as a distance so that the edge is smooth.
    distance = cv2.distanceTransform(1 - line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = cv2.GaussianBlur(distance, (0, 0), 1.2)
    size = (round(line.shape[1] * scale), round(line.shape[0] * scale))
    distance = cv2.resize(distance, size, interpolation=cv2.INTER_CUBIC) * scale
    margin = int(width / 2) + 2
    distance = cv2.copyMakeBorder(distance, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=1e6)
    # The blur lifts the line's own distance from nothing.
    return np.asarray(np.clip((width / 2 + 0.9 * scale - distance) + 0.5, 0, 1), np.float32)


def circled(ink: Ink, pen: float) -> Ink:
    """The ink with a circle around it, drawn by a pen that many pixels wide."""
    if not ink.any():
        return ink
    # From the middle to a corner, and to the circle's line.
    radius = 0.5 * float(np.hypot(*ink.shape)) + 1.5 * pen
    side = 2 * round(radius + pen)
    ring = np.zeros((side, side), np.float32)
    cv2.circle(ring, (side // 2, side // 2), round(radius), 1.0, max(1, round(pen)), cv2.LINE_AA)
    top, left = (side - ink.shape[0]) // 2, (side - ink.shape[1]) // 2
    ring[top : top + ink.shape[0], left : left + ink.shape[1]] += ink
    return np.minimum(ring, 1)


def underlined(ink: Ink, pen: float) -> Ink:
    """The ink with a line under it, a fifth longer on each side, drawn by a pen that many pixels wide."""
    if not ink.any():
        return ink
    aside = ink.shape[1] // 5 + round(pen)
    sheet = np.pad(ink, ((0, round(4 * pen)), (aside, aside)))
    row, end = round(ink.shape[0] + 2 * pen), sheet.shape[1] - round(pen)
    cv2.line(sheet, (round(pen), row), (end, row), 1.0, max(1, round(pen)), cv2.LINE_AA)
    return sheet


def place(ink: Ink, height: int, width: int, rng: np.random.Generator) -> Ink:
    """The ink somewhere on an empty sheet, wholly on it."""
    sheet = np.zeros((height, width), np.float32)
    top = int(rng.integers(0, max(1, height - ink.shape[0])))
    left = int(rng.integers(0, max(1, width - ink.shape[1])))
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink[: height - top, : width - left]
    return sheet


def tilt(ink: Ink, degrees: float) -> Ink:
    """The ink turned about its middle, on a sheet that holds all of it."""
    if not ink.any():
        return ink
    height, width = ink.shape
    pad = int(0.25 * max(height, width))
    padded = cv2.copyMakeBorder(ink, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    middle = (padded.shape[1] / 2, padded.shape[0] / 2)
    turned = cv2.warpAffine(padded, cv2.getRotationMatrix2D(middle, degrees, 1), padded.shape[::-1])
    return trim(np.asarray(turned, np.float32), 0.05)


def trim(ink: Ink, least: float) -> Ink:
    """The ink without the rows and columns around it of which no pixel is covered more than that."""
    if not ink.any():
        return ink
    rows, columns = np.flatnonzero(ink.max(axis=1) > least), np.flatnonzero(ink.max(axis=0) > least)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
