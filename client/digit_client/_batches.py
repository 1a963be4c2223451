"""Batches: the images of a call, in requests of bounded size, taken as they are needed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from digit_client._options import Options, ReadOptions
from digit_core.errors import ImageError, InvalidOptionError, without_tracebacks
from digit_core.inputs import ImageSource, is_batch

_MAX_ARRAY_ITEMS = 256
"""Images of a request: the default limit of the gateway, and of TensorFlow Serving's batching."""
_MAX_ARRAY_BYTES = 6 * 1024 * 1024
"""Largest array in a request, within the gateway's default limit of 8 MiB for a body."""
_SMALL = 64 * 64 * 3
"""Bytes of the largest picture of an array that counts as small; a larger one takes as long as a file."""

Images: TypeAlias = "Iterable[ImageSource | tuple[ImageSource, ReadOptions]]"
"""Images of a call, each alone or with options of its own."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one request: an array in the model's form, uint8 [n, *shape], or sources and their errors.

    The first image has the position `start` in the call.
    """

    start: int
    images: NDArray[np.uint8] | Sequence[Any]
    options: Options
    is_only: bool = False
    """True for a call for one image, whose file is the body: its error is that of the request."""

    @property
    def indices(self) -> list[int]:
        """Positions of the images in the call, each as often as it has parts."""
        return [self.start + index for index in range(len(self.images)) for _ in range(self.options.parts)]

    def with_positions(self, results: Iterable[Any]) -> list[tuple[int, Any]]:
        """Return the results of all parts with their positions among those of the call."""
        return [*enumerate(results, self.start * self.options.parts)]

    def halves(self) -> "list[Batch]":
        """Return two batches with the images of this one."""
        middle = len(self.images) // 2
        return [
            Batch(self.start + middle, self.images[middle:], self.options),
            Batch(self.start, self.images[:middle], self.options),
        ]


@dataclass(frozen=True, slots=True)
class Splitter:
    """Splits the images of a call into batches.

    A batch has at most `max_items` images, and if they are no array `max_bytes` in memory, unless one image
    has more. `read` returns an image as it is sent, or raises its ImageError or OSError, which takes its
    place. `parse` returns the options of an image that has some of its own.
    """

    read: Callable[[ImageSource], Any]
    parse: Callable[[Mapping[str, Any]], Options]
    max_items: int
    max_bytes: int

    def split(self, images: Images, options: Options) -> Iterator[Batch]:
        """Yield the batches. Images with other options than the one before begin a batch.

        An array that may be a batch in the model's form is split, not read; small images are 256 to a batch.
        """
        if is_batch(images) and images[:1].nbytes <= _MAX_ARRAY_BYTES:
            each = images[:1].nbytes
            items = _MAX_ARRAY_ITEMS if each <= _SMALL else self.max_items
            size = min(items, _MAX_ARRAY_BYTES // max(1, each))
            starts = range(0, len(images), size)
            yield from (Batch(start, images[start : start + size], options) for start in starts)
            return
        start = memory = 0
        group: list[Any] = []
        common = latest = options
        own: Mapping[str, Any] | None = None
        for index, image in enumerate(images):
            source, given = image if isinstance(image, tuple) else (image, None)
            if given != own:
                own, options = given, common
            try:
                if own:
                    options = options if options is not common else self._parse(own, common)
                item: Any = self.read(source)
            except (ImageError, InvalidOptionError, OSError) as error:
                item = without_tracebacks(error)
                if isinstance(error, ImageError):
                    error.index = index
            size = _memory(item)
            is_full = len(group) == self.max_items or memory + size > self.max_bytes
            if group and (is_full or options is not latest):
                yield Batch(start, group, latest)
                start, memory, group = index, 0, []
            group.append(item)
            memory, latest = memory + size, options
        if group:
            yield Batch(start, group, latest)

    def _parse(self, own: Mapping[str, Any], common: Options) -> Options:
        """Return the options of an image. Raise InvalidOptionError."""
        try:
            options = self.parse(own)
        except (TypeError, ValueError) as error:
            raise InvalidOptionError(str(error)) from error
        if options.parts != common.parts:
            raise InvalidOptionError("box: each image has as many parts as the call has boxes")
        return options


def _memory(image: Any) -> int:
    """Return the bytes of a file or of pixels in memory; 0 for a path."""
    if isinstance(image, (bytes, bytearray)):
        return len(image)
    if hasattr(image, "getbands"):
        pixels: int = image.width * image.height
        return pixels * len(image.getbands())
    return int(getattr(image, "nbytes", 0))
