"""Pages: grey pictures on which the reader finds digits, and the crops that the digits' model takes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_client._inputs import Pixels
from digit_client._types import Box
from digit_client.images import scaling
from digit_client.images.normalisation import SIDE, fit_to_mnist_canvas, is_normalized
from digit_client.images.segmentation import flatten_alpha
from digit_client.images.stroke_metrics import INK_THRESHOLD

PAGE_SIDE = 640
"""Longer side of a page in pixels, at most; writing is finer than a lone digit."""
MIN_PAGE_SIDE = 192
"""Longer side, in pixels, below which a picture is enlarged to about this size."""
_MARGIN = 0.12
"""Width of the paper around a box that is looked at, as a share of the box's longer side."""
_INK_SHARE = 0.4
"""Least contrast of ink, as a share of that of full ink."""
_CROP_SIDE = 64
"""Longer side, in pixels, to which large crops are downscaled."""


@dataclass(frozen=True, slots=True)
class Page:
    """Grey page, uint8 [h, w], and the height and width of the picture that it shows.

    `digit` is the picture itself, uint8 [28, 28], if it shows one digit in MNIST's form.
    """

    levels: NDArray[np.uint8]
    size: tuple[int, int]
    digit: NDArray[np.uint8] | None = None

    def to_picture(self, box: NDArray[np.float32]) -> Box:
        """Return a box of the page, left, top, width and height, in pixels of the picture."""
        down, across = self.size[0] / self.levels.shape[0], self.size[1] / self.levels.shape[1]
        left, top, width, height = (float(value) for value in box)
        right = min(round((left + width) * across), self.size[1])
        bottom = min(round((top + height) * down), self.size[0])
        left, top = max(0, round(left * across)), max(0, round(top * down))
        return int(left), int(top), max(1, right - int(left)), max(1, bottom - int(top))


def to_page(pixels: Pixels, size: tuple[int, int] | None = None) -> Page:
    """Return the page of a picture, uint8 [h, w], [h, w, 3] or [h, w, 4].

    `size` is the height and width of the picture before it was decoded downscaled.
    """
    if is_normalized(pixels):
        return Page(pixels, (SIDE, SIDE), pixels)
    picture = flatten_alpha(scaling.downscale(pixels, PAGE_SIDE))
    if picture.ndim == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    factor = round(MIN_PAGE_SIDE / max(picture.shape))
    if factor > 1:
        picture = np.asarray(
            cv2.resize(picture, (0, 0), fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        )
    return Page(picture, size or pixels.shape[:2])


def crop_digit(page: Page, box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the digit in a box as the model takes it: uint8 [28, 28], black if the box holds no ink."""
    left, top, width, height = (float(value) for value in box)
    margin = _MARGIN * max(width, height) + 1
    rows = slice(max(0, round(top - margin)), max(1, round(top + height + margin)))
    columns = slice(max(0, round(left - margin)), max(1, round(left + width + margin)))
    area = page.levels[rows, columns]
    if min(area.shape) < 2:
        return np.zeros((SIDE, SIDE), np.uint8)
    ink = _ink(area)
    inner = ink[
        max(0, round(top - 1) - rows.start) : max(1, round(top + height + 1) - rows.start),
        max(0, round(left - 1) - columns.start) : max(1, round(left + width + 1) - columns.start),
    ]
    x, y, w, h = cv2.boundingRect((inner > INK_THRESHOLD).astype(np.uint8))
    if not w:
        return np.zeros((SIDE, SIDE), np.uint8)
    digit = inner[y : y + h, x : x + w]
    scale = _CROP_SIDE / max(digit.shape)
    if scale < 1:
        small = max(1, round(w * scale)), max(1, round(h * scale))
        digit = np.asarray(cv2.resize(digit, small, interpolation=cv2.INTER_AREA), np.float32)
    return fit_to_mnist_canvas(digit)


def _ink(area: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the ink as a soft mask, float32 [h, w] in 0..1: what differs from the paper, dark or light.

    Otsu's threshold of the contrast with the paper, the median of the area's border.
    """
    border = np.concatenate((area[0], area[-1], area[:, 0], area[:, -1])).astype(np.float32)
    paper = float(np.median(border))
    signed = area.astype(np.float32) - paper
    low, high = np.quantile(signed, (0.02, 0.98))
    contrast = np.maximum(signed if high > -low else -signed, 0)
    top = max(float(contrast.max()), 1.0)
    scaled = cv2.convertScaleAbs(contrast, alpha=255 / top)
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    above = scaled[scaled > otsu]
    full = float(np.quantile(above, 0.75)) if above.size else 255.0
    least = max(otsu, _INK_SHARE * full)
    return np.asarray(np.clip((scaled - least / 2) / max(full - least / 2, 1.0), 0, 1), np.float32)
