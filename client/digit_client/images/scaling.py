"""Large pictures made smaller: by whole numbers, which takes a tenth of the time that others take."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 512
"""In pixels: on pictures no larger than this a digit is looked for."""


def factor(size: tuple[int, ...], side: int = SIDE) -> int:
    """By how much the longer of both lengths is divided to be no more than `side`."""
    return math.ceil(max(size) / side)


def reduced(pixels: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """The picture with no more than `side` pixels along a side: uint8 [h, w] or [h, w, channels]."""
    times = factor(pixels.shape[:2], side)
    if times == 1:
        return pixels
    height, width = (max(1, length // times) for length in pixels.shape[:2])
    whole = pixels[: height * times, : width * times]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


Picture = NDArray[np.uint8]
Steps = NDArray[np.uint8]

# From the darkest to the lightest, in levels: paper in a poor light has less.
_CLEAR = 170
# Of that, from a pixel to the next: an edge of ink is steeper on every picture but an enlarged one.
_SOFT = 0.2
# What is left of an edge, in pixels, after a soft picture is reduced.
_EDGE = 2.5
# In pixels: no digit has fewer.
_LEAST_SIDE = 8
# One row in so many tells of nearly all pictures that they were not enlarged.
_SAMPLE = 16


def undone(picture: Picture) -> Picture:
    """The picture at about its own size, itself where it was not enlarged: uint8 [h, w] or [h, w, 3]."""
    sample = picture[::_SAMPLE]
    if _factor(sample, _across(sample)) < 2:
        return picture
    factor = _factor(picture, _across(picture), _down(picture))
    factor = min(round(factor), max(picture.shape[:2]) // _LEAST_SIDE)
    if factor < 2:
        return picture
    # By a whole number it takes a third of the time.
    height, width = (-(-length // factor) for length in picture.shape[:2])
    below, aside = height * factor - picture.shape[0], width * factor - picture.shape[1]
    whole = cv2.copyMakeBorder(picture, 0, below, 0, aside, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


def _factor(picture: Picture, *steps: Steps) -> float:
    """How many times larger it is than it need be, whose pixels differ by so much across it and down."""
    least, most, _, _ = cv2.minMaxLoc(picture.reshape(len(picture), -1))
    steepest = max(1, *(int(along.max()) for along in steps))
    if most - least >= _CLEAR and steepest < _SOFT * (most - least):
        return (most - least) / (_EDGE * steepest)
    return min(_shortest(along) for along in steps)


def _across(picture: Picture) -> Steps:
    """By how much, at most, the pixels of a column differ from the next one's: uint8 [w - 1]."""
    # As rows of numbers: pixels in colours take NumPy and OpenCV ten times as long.
    rows = picture.reshape(len(picture), -1)
    channels = rows.shape[1] // picture.shape[1]
    most = cv2.absdiff(rows[:, channels:], rows[:, :-channels]).max(axis=0)
    return np.asarray(most.reshape(-1, channels).max(axis=1))


def _down(picture: Picture) -> Steps:
    """By how much, at most, the pixels of a row differ from the next one's: uint8 [h - 1]."""
    rows = picture.reshape(len(picture), -1)
    return np.asarray(cv2.absdiff(rows[1:], rows[:-1]).max(axis=1))


def _shortest(steps: Steps) -> int:
    """How many rows or columns are the same, at least, before another one follows."""
    if np.minimum(steps[1:], steps[:-1]).any():
        return 1
    return int(np.diff(np.flatnonzero(steps), prepend=-1, append=len(steps)).min())


def padded(image: NDArray[Any], by: int) -> NDArray[Any]:
    """With so many pixels of nothing on each side; np.pad takes eight times as long."""
    return np.asarray(cv2.copyMakeBorder(image, by, by, by, by, cv2.BORDER_CONSTANT, value=0))
