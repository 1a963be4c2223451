"""Crops: the ink of a digit in a box, or on a whole picture, in the form that the digits' model takes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.errors import NoInkError
from digit_core.images import scaling
from digit_core.images.normalisation import SIDE, fit_to_mnist_canvas
from digit_core.images.pages import SMALL_SIDE, Page, to_page
from digit_core.inputs import to_uint8_image


@dataclass(frozen=True, slots=True)
class CropConfig:
    """Thresholds of ink: what belongs to a digit, and which pictures show nothing else."""

    min_contrast: float = 24.0
    """Least contrast of ink in levels: blank paper has less. Tight scans may have less, and are exempt."""
    flat_range: float = 16.0
    """Largest range of levels along the border of a drawing or a clean scan, without the extremes."""
    scan_side: int = 50
    """Shorter side, in pixels, below which a picture is a tight scan: it shows nothing but the digit."""
    min_speck: float = 0.03
    """Area of a figure, as a share of the largest one's, below which it is a speck."""
    min_cut: float = 0.3
    """The same for a figure at the edge of a digit's box: a smaller one belongs to the digit beside it."""
    ink_threshold: float = 0.2
    """Ink, in 0..1, above which a pixel belongs to the drawing."""
    side: int = 96
    """Longer side, in pixels, to which crops, and pictures whose background is estimated, are downscaled."""
    background_window: int = 31
    """Width of the median filter that leaves the background, in pixels of `side`: no stroke is as wide."""


_CONFIG = CropConfig()


def normalise(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return all ink on a picture in MNIST's form: uint8 [28, 28], light ink on dark.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4], of bytes, of 16-bit integers, or of floats in 0..1 or
    0..255. A picture in MNIST's form is returned unchanged, or inverted if its ink is dark. Raise NoInkError
    if nothing is written on the picture, ImageShapeError or PixelValueError for other arrays.
    """
    digit = crop_picture(to_page(to_uint8_image(image)))
    if not digit.any():
        raise NoInkError("nothing is written on the image")
    return digit


def crop_digit(page: Page, box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the digit in a box as the model takes it: uint8 [28, 28], black if the box holds no ink."""
    left, top, width, height = (float(value) for value in box)
    rows = slice(max(0, round(top) - 1), max(1, round(top + height) + 1))
    columns = slice(max(0, round(left) - 1), max(1, round(left + width) + 1))
    part = page.levels[rows, columns]
    if min(part.shape) < 2:
        return np.zeros((SIDE, SIDE), np.uint8)
    small = scaling.downscale(part, _CONFIG.side)
    ink = _ink(small.astype(np.float32) - np.float32(np.median(_border(small))))
    return _fit(_keep_figures(ink, _CONFIG.min_cut)[0])


def crop_picture(page: Page) -> NDArray[np.uint8]:
    """Return all ink on the page as the model takes it: uint8 [28, 28], black if there is none.

    A picture that shows nothing but a digit needs no reader.
    """
    if page.digit is not None:
        return page.digit
    figures = _figures(page)
    return np.zeros((SIDE, SIDE), np.uint8) if figures is None else _fit(figures[0])


def crop_drawing(page: Page) -> NDArray[np.uint8] | None:
    """Return the digit on a drawing or a clean scan: one connected figure on a flat background.

    Return None for other pictures, on which the reader has to look for digits.
    """
    if page.digit is not None:
        return page.digit
    figures = _figures(page) if _is_flat(page.levels) or _is_scan(page) else None
    return _fit(figures[0]) if figures and figures[1] == 1 else None


def _border(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate((levels[0], levels[-1], levels[:, 0], levels[:, -1]))


def _is_flat(levels: NDArray[np.uint8]) -> bool:
    """True if the border of the picture has one level, apart from noise."""
    low, high = np.quantile(_border(levels), (0.02, 0.98))
    return bool(high - low <= _CONFIG.flat_range)


def _is_scan(page: Page) -> bool:
    return min(page.size) < _CONFIG.scan_side


def _figures(page: Page) -> tuple[NDArray[np.float32], int] | None:
    """Return the ink on a whole picture, without specks, and the number of its connected figures.

    Return None if nothing is written on the picture.
    """
    small = scaling.downscale(page.levels, SMALL_SIDE)
    if _is_scan(page):
        low, high, _, _ = cv2.minMaxLoc(small)
        # Most corners of a scan show paper, though ink may cover most of its border.
        is_dark = small[[0, 0, -1, -1], [0, -1, 0, -1]].mean() < (low + high) / 2
        contrast = small.astype(np.float32) - np.float32(low if is_dark else high)
    else:
        contrast = small.astype(np.float32) - _background(small)
        if float(np.abs(contrast).max()) < _CONFIG.min_contrast:
            return None
    return _keep_figures(_ink(contrast), _CONFIG.min_speck)


def _keep_figures(ink: NDArray[np.float32], min_at_edge: float) -> tuple[NDArray[np.float32], int]:
    """Return the ink of the connected figures that are large enough, and their number.

    `min_at_edge` is the least area of one that reaches the edge, as a share of the largest one's.
    """
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((ink > _CONFIG.ink_threshold).astype(np.uint8))
    starts, sizes, areas = boxes[:, :2], boxes[:, 2:4], boxes[:, cv2.CC_STAT_AREA]
    is_at_edge = (starts == 0).any(axis=1) | (starts + sizes == ink.shape[::-1]).any(axis=1)
    is_figure = areas >= np.where(is_at_edge, min_at_edge, _CONFIG.min_speck) * areas[1:].max(initial=1)
    is_figure[0] = False
    near = cv2.dilate(is_figure[labels].astype(np.uint8), np.ones((3, 3), np.uint8))
    return ink * near, int(is_figure.sum())


def _background(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the level of the paper at each pixel: one for a flat picture, or that of a median filter."""
    if _is_flat(levels) or min(levels.shape) < _CONFIG.background_window:
        return np.full(levels.shape, np.median(_border(levels)), np.float32)
    small = scaling.downscale(levels, _CONFIG.side)
    smooth = cv2.medianBlur(small, _CONFIG.background_window)
    size = levels.shape[1], levels.shape[0]
    return np.asarray(cv2.resize(smooth, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _ink(contrast: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ink as a soft mask, float32 [h, w] in 0..1, from signed contrast with the paper in levels.

    Ink is dark or light, whichever differs more. N. Otsu, "A threshold selection method from gray-level
    histograms", IEEE Trans. Syst. Man Cybern. 9, 1979.
    """
    low, high = np.quantile(contrast, (0.02, 0.98))
    levels = np.maximum(contrast if high > -low else -contrast, 0)
    top = max(float(levels.max()), 1.0)
    scaled = cv2.convertScaleAbs(levels, alpha=255 / top)
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    above = scaled[scaled > otsu]
    full = float(np.median(above)) if above.size else 255.0
    return np.asarray(np.clip((scaled - otsu / 2) / max(full - otsu / 2, 1.0), 0, 1), np.float32)


def _fit(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return ink, float32 [h, w] in 0..1, in MNIST's form: uint8 [28, 28], black if there is none."""
    left, top, width, height = cv2.boundingRect((ink > _CONFIG.ink_threshold).astype(np.uint8))
    if not width:
        return np.zeros((SIDE, SIDE), np.uint8)
    return fit_to_mnist_canvas(ink[top : top + height, left : left + width])
