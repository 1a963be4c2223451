"""Batches of pictures from any iterable of images, in bounded memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from digit_client import _inputs
from digit_client._exceptions import ImageError, without_tracebacks
from digit_client._inputs import ImageSource
from digit_client._recognition import MAX_BATCH, PictureError, Pictures

# Bytes of files and pixels in memory, at which a batch ends. Files at paths are read one after the other.
_BATCH_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """Pictures of a call, of which the first one has the position `start`."""

    start: int
    pictures: Pictures


def batches(images: Iterable[ImageSource]) -> Iterator[PictureBatch]:
    """Yield the pictures in batches, and take no image before its batch is asked for."""
    if _inputs.is_batch(images):
        for start in range(0, len(images), MAX_BATCH):
            yield PictureBatch(start, images[start : start + MAX_BATCH])
        return
    start = memory = 0
    batch: list[ImageSource | PictureError] = []
    for image in images:
        batch.append(read_once(image))
        memory += _memory(batch[-1])
        if len(batch) == MAX_BATCH or memory >= _BATCH_BYTES:
            yield PictureBatch(start, batch)
            start, memory, batch = start + len(batch), 0, []
    if batch:
        yield PictureBatch(start, batch)


def read_once(image: ImageSource) -> "ImageSource | PictureError":
    """Read an open file, which can be read only once, or return its error; leave other images as they are."""
    try:
        return _inputs.read_source(image) if hasattr(image, "read") else image
    except (ImageError, OSError) as error:
        return without_tracebacks(error)


def _memory(picture: Any) -> int:
    """Return the bytes of a file or of pixels in memory; 0 for a path."""
    if isinstance(picture, (bytes, bytearray)):
        return len(picture)
    if hasattr(picture, "getbands"):
        pixels: int = picture.width * picture.height
        return pixels * len(picture.getbands())
    return int(getattr(picture, "nbytes", 0))
