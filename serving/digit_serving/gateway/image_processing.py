"""Image processing: a request's pictures to the model's input, one row or many candidates a picture."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_client import ImageError, ImageTooLargeError, NoDigitError, NotAnImageError, TaskCard, images
from digit_client.images import Candidates
from digit_client.tfserving.codec import Batch
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.request_parsing import Pictures
from digit_serving.gateway.scheduling import Scheduler
from digit_serving.gateway.settings import Settings

_MAX_INLINE_PIXELS = 1_000_000
"""Larger pictures are read in a thread, since they would block the event loop. The limit for JPEGs, which are
decoded downscaled, is four times as high."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """Pictures of a request in the model's form, a row of `batch` each.

    `missing` lists the pictures, in ascending order, on which the preparation finds no digit though the task
    reads numbers; their rows are black. `prepared` lists those that were not in the model's form already.
    """

    batch: Batch
    missing: Sequence[int]
    prepared: Sequence[int]


class ImageProcessor:
    """Decodes, prepares and segments pictures; each method may yield to the event loop."""

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        self._max_pixels = settings.max_pixels
        self._scheduler = scheduler

    def prepare(self, pictures: Pictures, task: TaskCard, context: RequestContext) -> ModelInput:
        """Return the pictures in the model's form.

        Raise an ImageError with the picture's index, though not NoDigitError if the task reads numbers;
        OverloadedError if reading begins too late, DeadlineExceededError if it takes too long.
        """
        if not isinstance(pictures, np.ndarray):
            return self._prepare_files(pictures, task, context)
        if pictures.dtype == np.uint8 and task.kind == "digits":
            return self._normalise_arrays(pictures, task, context)
        return ModelInput(pictures, (), ())

    def segment(self, pictures: Pictures, index: int, task: TaskCard, context: RequestContext) -> Candidates:
        """Return candidates for the digits on the picture at `index`.

        A file is decoded again: the pixels of all files might not fit into memory. The thread does it, since
        segmentation takes from 10 ms to half a second. Raise an ImageError with the index, OverloadedError or
        DeadlineExceededError.
        """
        with errors_at(index):
            return self._scheduler.run_in_thread(
                context, index, _segment, pictures[index], task, self._max_pixels, context
            )

    def _prepare_files(self, files: Sequence[bytes], task: TaskCard, context: RequestContext) -> ModelInput:
        context.read_started_at = slice_began = time.perf_counter()
        batch = np.zeros((len(files), *task.shape), np.uint8)
        missing = []
        for index, data in enumerate(files):
            slice_began = self._scheduler.yield_if_due(slice_began, context, index)
            try:
                row = self._prepare_file(data, index, task, context)
            except ImageError as error:
                error.index = index
                raise
            if row is None:
                missing.append(index)
            else:
                batch[index] = row
        return ModelInput(batch, missing, range(len(files)))

    def _normalise_arrays(self, array: NDArray[Any], task: TaskCard, context: RequestContext) -> ModelInput:
        context.read_started_at = time.perf_counter()
        # Vectorised check: most images are normalised already.
        batch = array.copy()
        others = np.flatnonzero(~images.are_normalized(array)).tolist()
        slice_began = time.perf_counter()
        context.normalise_seconds = slice_began - context.read_started_at
        missing, changed = [], []
        for index in others:
            slice_began = self._scheduler.yield_if_due(slice_began, context, index)
            with errors_at(index):
                row = _prepare(array[index], task, context)
            if row is None:
                missing.append(index)
            batch[index] = 0 if row is None else row
            if row is None or not np.array_equal(row, array[index]):
                changed.append(index)
        return ModelInput(batch, missing, changed)

    def _prepare_file(
        self, data: bytes, index: int, task: TaskCard, context: RequestContext
    ) -> NDArray[np.uint8] | None:
        # The size is in the file's header, so a larger picture is refused before it is decoded.
        try:
            return _decode_and_prepare(data, task, min(self._max_pixels, _MAX_INLINE_PIXELS), context)
        except ImageTooLargeError:
            if self._max_pixels <= _MAX_INLINE_PIXELS:
                raise
        return self._scheduler.run_in_thread(
            context, index, _decode_and_prepare, data, task, self._max_pixels, context
        )


def to_image(picture: NDArray[np.uint8] | NDArray[np.float32], task: TaskCard) -> NDArray[np.uint8]:
    """Return an array in the model's form, uint8 or float32 in the task's range, as uint8 of its shape."""
    low, high = (0.0, 255.0) if picture.dtype == np.uint8 else task.range
    return images.to_uint8((picture.astype(np.float32) - low).reshape(task.shape) * (255 / (high - low)))


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


def _decode_and_prepare(
    data: bytes, task: TaskCard, max_pixels: int, context: RequestContext
) -> NDArray[np.uint8] | None:
    pixels = _decode(data, context, partial(images.decode_for_task, task=task, max_pixels=max_pixels))
    return _prepare(pixels, task, context)


def _segment(
    picture: bytes | NDArray[np.uint8] | NDArray[np.float32],
    task: TaskCard,
    max_pixels: int,
    context: RequestContext,
) -> Candidates:
    size = None
    if isinstance(picture, bytes):
        decode = partial(images.decode, max_pixels=max_pixels, side=images.READING_SIDE)
        pixels = _decode(picture, context, decode)
        size = images.original_size(picture)
    else:
        pixels = to_image(picture, task)
    with segmentation_timer(context):
        return images.segment(pixels, size=size)


def _decode(data: bytes, context: RequestContext, decode: Callable[[bytes], images.Pixels]) -> images.Pixels:
    if not data:
        raise NotAnImageError("the request holds no image")
    started = time.perf_counter()
    try:
        return decode(data)
    finally:
        context.decode_seconds += time.perf_counter() - started


def _prepare(pixels: images.Pixels, task: TaskCard, context: RequestContext) -> NDArray[np.uint8] | None:
    """Return the picture in the model's form, None if the task reads numbers and it shows no digit."""
    started = time.perf_counter()
    try:
        return images.prepare(pixels, task)
    except NoDigitError:
        # Candidates may show the digit.
        if task.reads_numbers:
            return None
        raise
    finally:
        context.normalise_seconds += time.perf_counter() - started
