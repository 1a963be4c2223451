"""Preparation: any picture to the model's input, as its task card says."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.errors import ImageShapeError
from digit_core.images.crops import normalise
from digit_core.images.decode import MAX_PIXELS, ImageFile, open_image
from digit_core.inputs import Pixels, to_uint8_image

_WHITE = 255
_OVERSAMPLING = 2
"""Least ratio of a decoded picture's sides to the model's, so that area interpolation averages pixels."""


def open_for_task(data: bytes, task: TaskCard, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Open an image file, to be decoded at the resolution that the task needs, as `open_image` does."""
    min_side = None if task.kind == "digits" else _OVERSAMPLING * max(task.shape[:2])
    return open_image(data, max_pixels=max_pixels, min_side=min_side)


def decode_for_task(data: bytes, task: TaskCard, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image file at the resolution that the task needs, as `decode` does, and with its errors."""
    return open_for_task(data, task, max_pixels=max_pixels).decode()


def prepare(image: NDArray[np.generic], task: TaskCard) -> NDArray[np.uint8]:
    """Return the picture in the model's form: uint8 of the card's shape.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4], of the number types of `normalise`. The kind `resize`
    scales by area interpolation down and by linear interpolation up; alpha is laid on white. Raise
    ImageShapeError or PixelValueError for other arrays, ImageShapeError if the kind `none` gets another
    shape, NoInkError if the kind `digits` finds nothing written.
    """
    if task.kind == "digits":
        return normalise(image)
    pixels = _to_color(to_uint8_image(image), task)
    height, width = task.shape[:2]
    if task.kind == "none" and pixels.shape[:2] != (height, width):
        raise ImageShapeError(
            f"the model takes pictures of {width}×{height} pixels, not of {pixels.shape[1]}×{pixels.shape[0]}"
        )
    return np.ascontiguousarray(_resize(pixels, height, width, task)).reshape(task.shape)


def _to_color(pixels: Pixels, task: TaskCard) -> Pixels:
    """Return grey [h, w] or RGB [h, w, 3]."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _on_white(pixels)
    is_grey = pixels.ndim == 2
    if task.color == "grey":
        return pixels if is_grey else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8) if is_grey else pixels


def _on_white(pixels: Pixels) -> Pixels:
    """Alpha compositing on white: RGBA [h, w, 4] to RGB [h, w, 3]."""
    colors, alpha = pixels[:, :, :3].astype(np.uint16), pixels[:, :, 3:].astype(np.uint16)
    return np.asarray((colors * alpha + _WHITE * (_WHITE - alpha) + _WHITE // 2) // _WHITE, np.uint8)


def _resize(pixels: Pixels, height: int, width: int, task: TaskCard) -> Pixels:
    if task.fit == "crop":
        pixels = _crop_to_ratio(pixels, height, width)
    if task.fit != "pad":
        return _scale(pixels, height, width)
    factor = min(height / pixels.shape[0], width / pixels.shape[1])
    inner_height = min(height, max(1, round(factor * pixels.shape[0])))
    inner_width = min(width, max(1, round(factor * pixels.shape[1])))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    padded = np.zeros((height, width, *pixels.shape[2:]), np.uint8)
    padded[top : top + inner_height, left : left + inner_width] = _scale(pixels, inner_height, inner_width)
    return padded


def _crop_to_ratio(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return the largest centred part with the aspect ratio of `height` and `width`."""
    rows, columns = pixels.shape[:2]
    kept_rows = min(rows, max(1, round(columns * height / width)))
    kept_columns = min(columns, max(1, round(rows * width / height)))
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return pixels[top : top + kept_rows, left : left + kept_columns]


def _scale(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    is_smaller = height * width < pixels.shape[0] * pixels.shape[1]
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation), np.uint8)
