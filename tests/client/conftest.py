"""A digit on a page, photographs, and whether two framed digits are the same."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Sheet = NDArray[np.float32]


@pytest.fixture
def seven(digits: Any) -> Pixels:
    pixels: Pixels = digits.one(7)
    return pixels


@pytest.fixture
def page(seven: Pixels) -> Pixels:
    return page_with(seven)


def page_with(digit: Pixels) -> Pixels:
    """The digit in dark grey on a light grey page, off its middle: uint8 [400, 500]."""
    large = cv2.resize(digit, (168, 168), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
    ink = np.zeros((400, 500), np.float32)
    ink[60:228, 250:418] = large
    return np.rint(215 - 170 * ink).astype(np.uint8)


def photographed(light: Sheet) -> Pixels:
    """With noise: on a ground of exactly one colour all would be part of a drawing."""
    noise = np.random.default_rng(0).normal(0, 2, light.shape)
    return np.rint(light + noise).astype(np.uint8)


def cut_out(digit: Pixels) -> Pixels:
    """The digit, light on dark, with nothing around it."""
    left, top, width, height = cv2.boundingRect((digit > 40).astype(np.uint8))
    return digit[top : top + height, left : left + width]


def assert_same_digit(found: Pixels, expected: Pixels) -> None:
    """Whether two framed digits show the same strokes, give or take their thickness."""
    assert found.shape == (28, 28)
    assert found.dtype == np.uint8
    assert likeness(found, expected) > 0.85


def likeness(found: Pixels, expected: Pixels) -> float:
    """How well two framed digits agree, at most 1, but for a pixel more or less of their strokes."""
    blurred = (cv2.GaussianBlur(each, (5, 5), 0).ravel() for each in (found, expected))
    return float(np.corrcoef(*blurred)[0, 1])
