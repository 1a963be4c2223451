"""Image processing: a request's pictures to the model's input, one glyph or many candidates a picture."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_client import ImageError, ImageTooLargeError, NoDigitError, NotAnImageError, images
from digit_client.images import Candidates
from digit_client.tfserving.codec import Batch
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.request_parsing import Pictures
from digit_serving.gateway.scheduling import Scheduler
from digit_serving.gateway.settings import Settings

_MAX_INLINE_PIXELS = 1_000_000
"""Larger pictures are read in a thread, since they would block the event loop. The limit for JPEGs, which are
decoded downscaled, is four times as high."""
_BLACK = np.zeros((images.SIDE, images.SIDE), np.uint8)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """Pictures of a request in the model's form, a row of `batch` each.

    `missing` lists the pictures, in ascending order, on which normalisation finds no digit; their rows are
    black. `normalised` lists those that were not in the model's form already.
    """

    batch: Batch
    missing: Sequence[int]
    normalised: Sequence[int]


class ImageProcessor:
    """Decodes, normalises and segments pictures; each method may yield to the event loop."""

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        self._max_pixels = settings.max_pixels
        self._scheduler = scheduler

    def normalise(self, pictures: Pictures, context: RequestContext) -> ModelInput:
        """Return the pictures in the model's form.

        Raise an ImageError, though not NoDigitError, with the picture's index; OverloadedError if reading
        begins too late, DeadlineExceededError if it takes too long.
        """
        if not isinstance(pictures, np.ndarray):
            return self._normalise_files(pictures, context)
        if pictures.dtype == np.uint8:
            return self._normalise_arrays(pictures, context)
        return ModelInput(pictures, (), ())

    def segment(self, pictures: Pictures, index: int, context: RequestContext) -> Candidates:
        """Return candidates for the digits on the picture at `index`.

        A file is decoded again: the pixels of all files might not fit into memory. The thread does it, since
        segmentation takes from 10 ms to half a second. Raise an ImageError with the index, OverloadedError or
        DeadlineExceededError.
        """
        with errors_at(index):
            return self._scheduler.run_in_thread(
                context, index, _segment, pictures[index], self._max_pixels, context
            )

    def _normalise_files(self, files: Sequence[bytes], context: RequestContext) -> ModelInput:
        context.read_started_at = slice_began = time.perf_counter()
        glyphs, missing = [], []
        for index, data in enumerate(files):
            slice_began = self._scheduler.yield_if_due(slice_began, context, index)
            try:
                glyphs.append(self._normalise_file(data, index, context))
            except NoDigitError:
                missing.append(index)
                glyphs.append(_BLACK)
            except ImageError as error:
                error.index = index
                raise
        return ModelInput(np.array(glyphs), missing, range(len(files)))

    def _normalise_arrays(self, array: NDArray[Any], context: RequestContext) -> ModelInput:
        context.read_started_at = time.perf_counter()
        # Vectorised check: most images are normalised already.
        batch = array.copy()
        others = np.flatnonzero(~images.are_normalized(array)).tolist()
        slice_began = time.perf_counter()
        context.normalise_seconds = slice_began - context.read_started_at
        missing, changed = [], []
        for index in others:
            slice_began = self._scheduler.yield_if_due(slice_began, context, index)
            try:
                batch[index] = _normalise(array[index], context)
                is_changed = not np.array_equal(batch[index], array[index])
            except NoDigitError:
                missing.append(index)
                batch[index], is_changed = _BLACK, True
            if is_changed:
                changed.append(index)
        return ModelInput(batch, missing, changed)

    def _normalise_file(self, data: bytes, index: int, context: RequestContext) -> NDArray[np.uint8]:
        # The size is in the file's header, so a larger picture is refused before it is decoded.
        try:
            return _decode_and_normalise(data, min(self._max_pixels, _MAX_INLINE_PIXELS), context)
        except ImageTooLargeError:
            if self._max_pixels <= _MAX_INLINE_PIXELS:
                raise
        return self._scheduler.run_in_thread(
            context, index, _decode_and_normalise, data, self._max_pixels, context
        )


def to_image(picture: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an array in the model's form, uint8 [28, 28] or float32 [784] in 0..1, as uint8 [28, 28]."""
    scale = 1 if picture.dtype == np.uint8 else 255
    return images.to_uint8(picture.astype(np.float32).reshape(images.SIDE, images.SIDE) * scale)


@contextmanager
def errors_at(index: int) -> Iterator[None]:
    """Set the index of an ImageError that the block raises."""
    try:
        yield
    except ImageError as error:
        error.index = index
        raise


@contextmanager
def segmentation_timer(context: RequestContext) -> Iterator[None]:
    """Add the block's duration to the request's segmentation."""
    started = time.perf_counter()
    context.segment_started_at = context.segment_started_at or started
    try:
        yield
    finally:
        context.segment_seconds += time.perf_counter() - started


def _decode_and_normalise(data: bytes, max_pixels: int, context: RequestContext) -> NDArray[np.uint8]:
    return _normalise(_decode(data, max_pixels, context), context)


def _segment(
    picture: bytes | NDArray[np.uint8] | NDArray[np.float32], max_pixels: int, context: RequestContext
) -> Candidates:
    size = None
    if isinstance(picture, bytes):
        pixels = _decode(picture, max_pixels, context, side=images.READING_SIDE)
        size = images.original_size(picture)
    else:
        pixels = to_image(picture)
    with segmentation_timer(context):
        return images.segment(pixels, size=size)


def _decode(data: bytes, max_pixels: int, context: RequestContext, **options: int) -> images.Pixels:
    if not data:
        raise NotAnImageError("the request holds no image")
    started = time.perf_counter()
    try:
        return images.decode(data, max_pixels=max_pixels, **options)
    finally:
        context.decode_seconds += time.perf_counter() - started


def _normalise(pixels: images.Pixels, context: RequestContext) -> NDArray[np.uint8]:
    started = time.perf_counter()
    try:
        return images.normalise(pixels)
    finally:
        context.normalise_seconds += time.perf_counter() - started
