"""Preparation: any picture to the model's input, as its task card says."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.errors import ImageShapeError, NoInkError
from digit_core.images.crops import crop_digit, normalise
from digit_core.images.files import MAX_PIXELS, ImageFile, open_image
from digit_core.images.pages import to_page
from digit_core.inputs import Pixels, to_uint8_image
from digit_core.results import Box

_WHITE = 255
_OVERSAMPLING = 2
"""Least ratio of a decoded picture's sides to the model's, so that area interpolation averages pixels."""


def open_for_task(data: bytes, task: TaskCard, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Open an image file, to be decoded at the resolution that the task needs, as `open_image` does."""
    if task.kind == "digits":
        return open_image(data, max_pixels=max_pixels, grey=True)
    # Bilinear interpolation picks pixels, so that it needs those of the whole file.
    min_side = max_pixels if task.prepare.interpolation == "bilinear" else _OVERSAMPLING * max(task.shape[:2])
    return open_image(data, max_pixels=max_pixels, min_side=min_side, exif=task.prepare.exif)


def decode_for_task(data: bytes, task: TaskCard) -> Pixels:
    """Decode an image file at the resolution that the task needs. Raise the errors of `decode`."""
    return open_for_task(data, task).decode()


def prepare(image: NDArray[np.generic], task: TaskCard, box: Box | None = None) -> NDArray[np.uint8]:
    """Return the picture, or its part in the box, in the model's form: uint8 of the card's shape.

    Takes grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4], of the number types of `normalise`. The kind `resize`
    scales by the card's interpolation down and by bilinear interpolation up; unless the model takes it, alpha
    is laid on white or ignored. Raise ImageShapeError or PixelValueError for other arrays, ImageShapeError if
    the kind `none` gets another shape, NoInkError if the kind `digits` finds nothing written.
    """
    if task.kind == "digits":
        return normalise(image) if box is None else _crop(image, box)
    if box is not None:
        left, top, width, height = box
        image = image[top : top + height, left : left + width]
    pixels = _to_color(to_uint8_image(image), task)
    height, width = task.shape[:2]
    if task.kind == "none" and pixels.shape[:2] != (height, width):
        raise ImageShapeError(
            f"the model takes pictures of {width}×{height} pixels, not of {pixels.shape[1]}×{pixels.shape[0]}"
        )
    return np.ascontiguousarray(_resize(pixels, height, width, task)).reshape(task.shape)


def _crop(image: NDArray[np.generic], box: Box) -> NDArray[np.uint8]:
    """Return the digit in the box, which is in pixels of the picture: its page may have fewer."""
    page = to_page(to_uint8_image(image))
    down, across = page.levels.shape[0] / page.size[0], page.levels.shape[1] / page.size[1]
    digit = crop_digit(page, np.array(box, np.float32) * np.array([across, down] * 2, np.float32))
    if not digit.any():
        raise NoInkError("nothing is written in the box")
    return digit


def _to_color(pixels: Pixels, task: TaskCard) -> Pixels:
    """Return grey [h, w], RGB [h, w, 3] or RGBA [h, w, 4]."""
    is_grey, has_alpha = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] == 4
    if task.prepare.color == "rgba":
        opaque = cv2.COLOR_GRAY2RGBA if is_grey else cv2.COLOR_RGB2RGBA
        return pixels if has_alpha else np.asarray(cv2.cvtColor(pixels, opaque), np.uint8)
    if has_alpha:
        pixels = pixels[:, :, :3] if task.prepare.alpha == "ignore" else _on_white(pixels)
    if task.prepare.color == "grey":
        return pixels if is_grey else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8) if is_grey else pixels


def _on_white(pixels: Pixels) -> Pixels:
    """Alpha compositing on white: RGBA [h, w, 4] to RGB [h, w, 3]."""
    colors, alpha = pixels[:, :, :3].astype(np.uint16), pixels[:, :, 3:].astype(np.uint16)
    return np.asarray((colors * alpha + _WHITE * (_WHITE - alpha) + _WHITE // 2) // _WHITE, np.uint8)


def _resize(pixels: Pixels, height: int, width: int, task: TaskCard) -> Pixels:
    if task.prepare.fit == "crop":
        pixels = _crop_to_ratio(pixels, height, width)
    if task.prepare.fit != "pad":
        return _scale(pixels, height, width, task)
    # Floating-point operations in the order of tf.image.resize_with_pad, with which Keras pads.
    ratio = max(pixels.shape[0] / height, pixels.shape[1] / width)
    rows, columns = pixels.shape[0] / ratio, pixels.shape[1] / ratio
    scaled = _scale(pixels, max(1, int(rows)), max(1, int(columns)), task)
    top, left = int((height - rows) / 2), int((width - columns) / 2)
    padded = np.zeros((height, width, *pixels.shape[2:]), np.uint8)
    padded[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return padded


def _crop_to_ratio(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return the largest centred part with the aspect ratio of `height` and `width`, as Keras does."""
    rows, columns = pixels.shape[:2]
    kept_rows = min(rows, max(1, columns * height // width))
    kept_columns = min(columns, max(1, rows * width // height))
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return pixels[top : top + kept_rows, left : left + kept_columns]


def _scale(pixels: Pixels, height: int, width: int, task: TaskCard) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    is_averaged = height * width < pixels.shape[0] * pixels.shape[1] and task.prepare.interpolation == "area"
    interpolation = cv2.INTER_AREA if is_averaged else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation), np.uint8)
