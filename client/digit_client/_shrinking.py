"""Shrinking of a picture that exceeds a service's limit, to the pixels that the service would look at."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_core.errors import ImageError, ImageTooLargeError, how_to_install
from digit_core.results import Box, Prediction, Result

_QUALITY = 95
"""JPEG's quality: its artefacts stay below the noise of a camera."""
_MAX_HALVINGS = 4
_MAX_PIXELS = 64_000_000
"""Largest picture that is decoded; a JPEG, which is decoded downscaled, may have four times as many."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Picture as it is sent, and its scale: its width and height as a share of those of the picture given."""

    data: bytes
    across: float = 1.0
    down: float = 1.0

    def to_sent(self, box: Box) -> Box:
        """Return a box of the picture as given, in pixels of the one that is sent."""
        return _scale(box, self.across, self.down)

    def to_given(self, result: Result) -> Result:
        """Return a result with its boxes in pixels of the picture as given."""

        def scaled(box: Box) -> Box:
            return _scale(box, 1 / self.across, 1 / self.down)

        if isinstance(result, Prediction):
            return replace(result, box=result.box and scaled(result.box))
        lines = tuple(_with_boxes(line, scaled) for line in result.lines)
        return replace(result, lines=lines, box=result.box and scaled(result.box))


def shrink(data: bytes, max_bytes: int, task: TaskCard | None, *, is_part: bool) -> Shrunk:
    """Return the picture in at most `max_bytes`, with the pixels that a model of the task would be given.

    A picture of which parts are read keeps as many pixels as fit. Raise ImageTooLargeError if that can't be
    done, ImageError if the picture can't be decoded.
    """
    advice = "save it smaller, or as JPEG"
    try:
        from digit_core import images
        from digit_core.images import scaling
    except ImportError as error:
        raise _too_large(
            data, max_bytes, f"{advice}; the client does so itself after you {how_to_install('images')}"
        ) from error
    task = task or DIGITS
    if task.kind == "digits":
        # A part is decoded at the full resolution of its picture.
        opened = images.open_image(data, max_pixels=_MAX_PIXELS, min_side=_MAX_PIXELS if is_part else None)
    else:
        opened = images.open_for_task(data, task, max_pixels=_MAX_PIXELS)
    pixels, (height, width) = opened.decode(), opened.size
    if task.kind == "digits" and not is_part:
        pixels = scaling.downscale(pixels, scaling.PAGE_SIDE)
    for _ in range(_MAX_HALVINGS):
        file = _encode(pixels)
        if len(file) <= max_bytes:
            return Shrunk(file, pixels.shape[1] / width, pixels.shape[0] / height)
        pixels = scaling.downscale(pixels, max(pixels.shape[:2]) // 2)
    raise _too_large(data, max_bytes, advice)


def check_size(data: bytes, max_bytes: int) -> None:
    """Raise ImageTooLargeError for a file of more bytes."""
    if len(data) > max_bytes:
        raise _too_large(data, max_bytes, 'save it smaller, or let the client do so with resize="auto"')


def _too_large(data: bytes, max_bytes: int, advice: str) -> ImageError:
    sizes = f"the picture has {len(data) / 1e6:.1f} MB, but the service takes {max_bytes / 1e6:.1f} MB"
    return ImageTooLargeError(f"{sizes}: {advice}")


def _encode(pixels: Any) -> bytes:
    """Return a PNG file of a picture with alpha, a JPEG file of any other."""
    from PIL import Image

    buffer, image = io.BytesIO(), Image.fromarray(pixels)
    image.save(buffer, *(("PNG",) if image.mode == "RGBA" else ("JPEG",)), quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _with_boxes(line: Any, scaled: Callable[[Box], Box]) -> Any:
    digits = tuple(replace(digit, box=scaled(digit.box)) for digit in line.digits)
    return replace(line, box=scaled(line.box), digits=digits, separators=tuple(map(scaled, line.separators)))


def _scale(box: Box, across: float, down: float) -> Box:
    """Return a box with its edges scaled, at least a pixel wide and high."""
    left, top, width, height = box
    right, bottom = round((left + width) * across), round((top + height) * down)
    left, top = round(left * across), round(top * down)
    return left, top, max(1, right - left), max(1, bottom - top)
