"""Pages: grey pictures of bounded size, on which digits are found."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.errors import ImageShapeError
from digit_core.images import scaling
from digit_core.images.normalisation import SIDE, is_normalized
from digit_core.inputs import Pixels
from digit_core.results import Box, Orientation

SMALL_SIDE = 128
"""Longer side, in pixels, of the view on which a lone digit is looked for first. Smaller pictures are
enlarged to about this size."""


@dataclass(frozen=True, slots=True)
class Page:
    """Grey page, uint8 [h, w], and the height and width of the picture that it shows.

    `digit` is the picture itself, uint8 [28, 28], if it shows one digit in MNIST's form. `start` is the left
    and top of a part in its picture, whose size is `size`. The page shows the picture rotated clockwise by
    `rotation` degrees.
    """

    levels: NDArray[np.uint8]
    size: tuple[int, int]
    digit: NDArray[np.uint8] | None = None
    start: tuple[int, int] = (0, 0)
    rotation: Orientation | None = None

    @property
    def is_input(self) -> bool:
        """True if the picture has the size of the model's input, so that only the model is asked."""
        return self.size == (SIDE, SIDE)

    @property
    def is_close(self) -> bool:
        """True for a picture so small that a single digit fills it, and may be cut off: a close crop."""
        return max(self.size) <= SMALL_SIDE

    def to_picture(self, box: NDArray[np.float32]) -> Box:
        """Return a box of the page, left, top, width and height, in pixels of the picture."""
        rows, columns = self.levels.shape
        left, top, width, height = (float(value) for value in box)
        if self.rotation == 90:
            left, top, width, height = top, columns - left - width, height, width
        elif self.rotation == 180:
            left, top = columns - left - width, rows - top - height
        elif self.rotation == 270:
            left, top, width, height = rows - top - height, left, height, width
        if self.rotation in (90, 270):
            rows, columns = columns, rows
        down, across = self.size[0] / rows, self.size[1] / columns
        right = min(round((left + width) * across), self.size[1])
        bottom = min(round((top + height) * down), self.size[0])
        left, top = max(0, round(left * across)), max(0, round(top * down))
        place = int(left) + self.start[0], int(top) + self.start[1]
        return *place, max(1, right - int(left)), max(1, bottom - int(top))

    def views(self) -> list[tuple[NDArray[np.uint8], int]]:
        """Return the page at the resolutions at which a lone digit is looked for, and their factors.

        The coarse view costs a twenty-fifth of the whole page, and a lone digit mostly fills the picture.
        """
        factor = scaling.downscale_factor(self.levels.shape, SMALL_SIDE)
        whole = (self.levels, 1)
        return [whole] if factor < 3 else [(scaling.downscale(self.levels, SMALL_SIDE), factor), whole]

    def rotated(self, degrees: Orientation, max_side: int | None = None) -> "Page":
        """Return the page rotated clockwise, at most as long as `max_side`, without its digit."""
        levels = scaling.downscale(self.levels, max_side) if max_side else self.levels
        levels = np.ascontiguousarray(np.rot90(levels, -degrees // 90))
        return replace(self, levels=levels, digit=None, rotation=degrees)


def to_page(pixels: Pixels, size: tuple[int, int] | None = None) -> Page:
    """Return the page of a picture, uint8 [h, w], [h, w, 3] or [h, w, 4].

    `size` is the height and width of the picture before it was decoded downscaled.
    """
    size = size or pixels.shape[:2]
    is_small = max(pixels.shape[:2]) <= scaling.PAGE_SIDE
    grey = _to_grey(pixels if is_small else scaling.downscale(pixels, scaling.PAGE_SIDE))
    for digit in (grey, 255 - grey) if grey.shape == (SIDE, SIDE) else ():
        if is_normalized(digit):
            return Page(digit, size, digit)
    factor = round(SMALL_SIDE / max(grey.shape))
    if factor > 1:
        grey = np.asarray(cv2.resize(grey, (0, 0), fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR))
    return Page(grey, size)


def to_part(pixels: Pixels, box: Box) -> Page | ImageShapeError:
    """Return the page of a part of a picture, or the error of a box outside of it."""
    left, top, width, height = box
    part = pixels[top : top + height, left : left + width]
    if not part.size:
        rows, columns = pixels.shape[:2]
        reason = "lies outside of the picture" if width and height else "has no pixel of the picture"
        return ImageShapeError(f"the box {list(box)} {reason}, which has {columns}×{rows} pixels")
    return replace(to_page(part), start=(left, top))


def _to_grey(picture: Pixels) -> NDArray[np.uint8]:
    """Return grey levels. Transparent pictures are blended with paper."""
    picture = _flatten_alpha(picture)
    return picture if picture.ndim == 2 else np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def _flatten_alpha(pixels: Pixels) -> Pixels:
    """Blend RGBA with white or black paper, in contrast to the ink: uint8 [h, w] or [h, w, 3]."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    if pixels[:, :, 3].min() == 255:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)
    color, alpha = pixels[:, :, :3].astype(np.float32), pixels[:, :, 3:] / np.float32(255)
    weight = float(alpha.sum())
    luminance = float((color.mean(axis=2, keepdims=True) * alpha).sum()) / weight if weight else 0.0
    paper = np.float32(0 if luminance > 127 else 255)
    return np.asarray(np.rint(color * alpha + paper * (1 - alpha)), np.uint8)
