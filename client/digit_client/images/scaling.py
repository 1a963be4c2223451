"""Image scaling by integer factors: downscaling of large pictures and reversal of an earlier upscaling.

OpenCV's area interpolation is up to ten times as fast by an integer factor as by another one.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_SIDE = 512
"""Longer side, in pixels, of the pictures on which a digit is searched for."""


@dataclass(frozen=True, slots=True)
class UpscalingConfig:
    """Thresholds for the detection of an upscaled picture."""

    min_range: int = 170
    """Least difference between the lightest and the darkest pixel, in levels; paper without ink has less."""
    max_slope: float = 0.2
    """Steepest step between neighbours, as a share of the range; edges are steeper without upscaling."""
    edge_width: float = 2.5
    """Width, in pixels, of the steepest edge after the upscaling is undone."""
    min_side: int = 8
    """Least longer side of the picture after the upscaling is undone, in pixels."""
    row_step: int = 16
    """Stride of the rows that are sampled first: a sample rules out upscaling for nearly all pictures."""


_CONFIG = UpscalingConfig()


def downscale_factor(shape: tuple[int, ...], max_side: int = MAX_SIDE) -> int:
    """Return the smallest integer divisor that brings both lengths, in pixels, to `max_side` or less."""
    return math.ceil(max(shape) / max_side)


def downscale(pixels: NDArray[np.uint8], max_side: int = MAX_SIDE) -> NDArray[np.uint8]:
    """Downscale uint8 [h, w] or [h, w, channels] by an integer, to at most `max_side` pixels along a side."""
    factor = downscale_factor(pixels.shape[:2], max_side)
    if factor == 1:
        return pixels
    height, width = (max(1, length // factor) for length in pixels.shape[:2])
    divisible = pixels[: height * factor, : width * factor]
    return np.asarray(cv2.resize(divisible, (width, height), interpolation=cv2.INTER_AREA))


def undo_upscaling(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Downscale an upscaled picture to about its original size: uint8 [h, w] or [h, w, 3].

    Both repeated pixels and smooth interpolation are recognised. Other pictures are returned unchanged.
    """
    sample = picture[:: _CONFIG.row_step]
    if _upscaling_factor(sample, _column_differences(sample)) < 2:
        return picture
    factor = _upscaling_factor(picture, _column_differences(picture), _row_differences(picture))
    factor = min(round(factor), max(picture.shape[:2]) // _CONFIG.min_side)
    if factor < 2:
        return picture
    # Replicate the border up to a multiple of the factor: INTER_AREA is three times as fast by an integer.
    height, width = (-(-length // factor) for length in picture.shape[:2])
    bottom, right = height * factor - picture.shape[0], width * factor - picture.shape[1]
    divisible = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(divisible, (width, height), interpolation=cv2.INTER_AREA))


def pad(image: NDArray[Any], width: int) -> NDArray[Any]:
    """Pad [h, w] by `width` zeros on each side; np.pad takes eight times as long."""
    return np.asarray(cv2.copyMakeBorder(image, width, width, width, width, cv2.BORDER_CONSTANT, value=0))


def _upscaling_factor(picture: NDArray[np.uint8], *differences: NDArray[np.uint8]) -> float:
    """Return the factor by which the picture was upscaled, from the differences along one or both axes."""
    low, high, _, _ = cv2.minMaxLoc(picture.reshape(len(picture), -1))
    steepest = max(1, *(int(steps.max()) for steps in differences))
    if high - low >= _CONFIG.min_range and steepest < _CONFIG.max_slope * (high - low):
        return (high - low) / (_CONFIG.edge_width * steepest)
    return min(_shortest_run(steps) for steps in differences)


def _column_differences(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest absolute difference between each column and the next: uint8 [w - 1]."""
    # Flatten to two dimensions: NumPy and OpenCV are ten times as fast.
    rows = picture.reshape(len(picture), -1)
    channels = rows.shape[1] // picture.shape[1]
    largest = cv2.absdiff(rows[:, channels:], rows[:, :-channels]).max(axis=0)
    return np.asarray(largest.reshape(-1, channels).max(axis=1))


def _row_differences(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest absolute difference between each row and the next: uint8 [h - 1]."""
    rows = picture.reshape(len(picture), -1)
    return np.asarray(cv2.absdiff(rows[1:], rows[:-1]).max(axis=1))


def _shortest_run(differences: NDArray[np.uint8]) -> int:
    """Return the length of the shortest run of identical rows or columns."""
    if np.minimum(differences[1:], differences[:-1]).any():
        return 1
    return int(np.diff(np.flatnonzero(differences), prepend=-1, append=len(differences)).min())
