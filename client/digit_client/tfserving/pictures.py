"""Pictures of a call: batches of them from any iterable, their decoding and their preparation."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_client import _inputs
from digit_client import images as digit_images
from digit_client._exceptions import ImageError, without_tracebacks
from digit_client._inputs import ImageSource
from digit_client.artifact.task_card import DIGITS, TaskCard
from digit_client.images import Candidates

BATCH_SIZE = 256
"""Largest number of pictures in a batch."""
# Bytes of files and pixels in memory, at which a batch ends. Files at paths are read one after the other.
_BATCH_BYTES = 32 * 1024 * 1024

_Result = TypeVar("_Result")

PictureError: TypeAlias = ImageError | OSError
"""Error of one picture: it can't be read, decoded, or classified."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Picture of a call. Each use decodes it anew: the pixels of a batch might not fit into memory.

    `source` is the error if an open file could not be read. `index` is the position among several pictures;
    ImageErrors get it. `is_array_item` is True for an item of an array that may be a batch in the model's
    form.
    """

    source: "ImageSource | PictureError"
    index: int | None = None
    is_array_item: bool = False

    @classmethod
    def of(cls, image: ImageSource, index: int | None = None, *, is_array_item: bool = False) -> "Picture":
        """Read an open file, which can be read only once; leave other images as they are."""
        try:
            source = _inputs.read_source(image) if hasattr(image, "read") else image
        except (ImageError, OSError) as error:
            return cls(without_tracebacks(error), index)
        return cls(source, index, is_array_item)

    def attempt(self, step: Callable[[], _Result]) -> _Result | PictureError:
        """Return what the step returns, or the error of this picture that it raises."""
        try:
            return step()
        except (ImageError, OSError) as error:
            if isinstance(error, ImageError):
                error.index = self.index
            return without_tracebacks(error)

    def prepare(self, task: TaskCard) -> NDArray[np.uint8]:
        """Return the picture in the model's form: uint8 of the task's shape."""
        return digit_images.prepare(self._decode(task), task)

    def normalise(self) -> NDArray[np.uint8]:
        """Return the normalised picture: uint8 [28, 28]."""
        return digit_images.normalise(self._decode(DIGITS))

    def is_model_input(self, glyph: object) -> bool:
        """True if the caller gave the glyph as the model's input: any prediction of it is the answer."""
        return self.is_array_item and np.array_equal(np.asarray(glyph), np.asarray(self.source))

    def segment(self) -> Candidates:
        """Return the picture's candidates for digits."""
        if isinstance(self.source, np.ndarray):
            return digit_images.segment(self.source)
        data = self._read()
        pixels = digit_images.decode(data, side=digit_images.READING_SIDE)
        return digit_images.segment(pixels, size=digit_images.original_size(data))

    def memory(self) -> int:
        """Return the bytes of a file or of pixels in memory; 0 for a path."""
        source: Any = self.source
        if isinstance(source, (bytes, bytearray)):
            return len(source)
        if hasattr(source, "getbands"):
            pixels: int = source.width * source.height
            return pixels * len(source.getbands())
        return getattr(source, "nbytes", 0)

    def _decode(self, task: TaskCard) -> NDArray[Any]:
        if isinstance(self.source, np.ndarray):
            return self.source
        return digit_images.decode_for_task(self._read(), task)

    def _read(self) -> bytes:
        if isinstance(self.source, (ImageError, OSError)):
            raise self.source
        return _inputs.read_source(self.source)


def batches(images: Iterable[ImageSource]) -> Iterator[list[Picture]]:
    """Yield the pictures in batches, and take no image before its batch is asked for."""
    is_array = _inputs.is_batch(images)
    batch: list[Picture] = []
    memory = 0
    for index, image in enumerate(images):
        picture = Picture.of(image, index, is_array_item=is_array)
        batch.append(picture)
        memory += picture.memory()
        if len(batch) == BATCH_SIZE or memory >= _BATCH_BYTES:
            yield batch
            batch, memory = [], 0
    if batch:
        yield batch
