"""Batches: the images of a call, in requests of bounded size, taken as they are needed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_core.errors import ImageError, without_tracebacks
from digit_core.inputs import ImageSource, is_batch

_MAX_ARRAY_ITEMS = 256
"""Images of a request: the default limit of the gateway, and of TensorFlow Serving's batching."""
_SMALL = 64 * 64 * 3
"""Bytes of the largest picture of an array that counts as small; a larger one takes as long as a file."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one request: an array in the model's form, uint8 [n, *shape], or sources and their errors.

    The first image has the position `start` in the call.
    """

    start: int
    images: NDArray[np.uint8] | Sequence[Any]


def split(
    images: Iterable[ImageSource], read: Callable[[ImageSource], Any], max_items: int, max_bytes: int
) -> Iterator[Batch]:
    """Yield batches of at most `max_items` images, and `max_bytes` in memory unless one image has more.

    `read` returns an image as it is sent, or raises its ImageError or OSError, which takes its place. An
    array that may be a batch in the model's form is split, not read; small images are 256 to a batch.
    """
    if is_batch(images) and images[:1].nbytes <= max_bytes:
        each = images[:1].nbytes
        size = min(_MAX_ARRAY_ITEMS if each <= _SMALL else max_items, max_bytes // max(1, each))
        yield from (Batch(start, images[start : start + size]) for start in range(0, len(images), size))
        return
    start = memory = 0
    group: list[Any] = []
    for index, image in enumerate(images):
        try:
            item = read(image)
        except (ImageError, OSError) as error:
            item = without_tracebacks(error)
            if isinstance(error, ImageError):
                error.index = index
        size = _memory(item)
        if group and (len(group) == max_items or memory + size > max_bytes):
            yield Batch(start, group)
            start, memory, group = index, 0, []
        group.append(item)
        memory += size
    if group:
        yield Batch(start, group)


def _memory(image: Any) -> int:
    """Return the bytes of a file or of pixels in memory; 0 for a path."""
    if isinstance(image, (bytes, bytearray)):
        return len(image)
    if hasattr(image, "getbands"):
        pixels: int = image.width * image.height
        return pixels * len(image.getbands())
    return int(getattr(image, "nbytes", 0))
