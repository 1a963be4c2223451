"""Preparation: pictures to the model's input, in slices of the event loop or in a thread."""

import asyncio
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np

from digit_core import images
from digit_core.artifact.task_card import TaskCard
from digit_core.errors import DeadlineExceededError, DigitError, ImageTooLargeError, OverloadedError
from digit_core.images import Page
from digit_core.inputs import ImageSource, Pixels
from digit_core.recognition import page_of_picture, prepare_picture
from digit_serving.gateway.asgi import SLICE_SECONDS, await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.settings import Settings

_MAX_INLINE_PIXELS = 1_000_000
"""Larger pictures are read in a thread, since they would block the event loop. The limit for JPEGs, which are
decoded downscaled, is four times as high."""

_Result = TypeVar("_Result")


class Scheduler:
    """Schedules the work on pictures: what takes long, one at a time in a thread, within the deadline."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # One thread: two threads would need the memory of two large pictures.
        self._executor = ThreadPoolExecutor(1, "large")

    def run_in_thread(
        self, context: RequestContext, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        """Call the function in the single thread for long work, unless the request waited too long."""

        def check_time_and_call() -> _Result:
            self._check_time(context)
            try:
                return function(*arguments)
            except DigitError as error:
                # Clear the frames, which keep the pixels alive: the thread goes on with other pictures.
                traceback.clear_frames(error.__traceback__)
                raise

        return await_(asyncio.get_running_loop().run_in_executor(self._executor, check_time_and_call))

    def yield_if_due(self, context: RequestContext) -> None:
        """Yield to the event loop after SLICE_SECONDS of a request's work."""
        if time.perf_counter() - context.slice_began > SLICE_SECONDS:
            self._check_time(context)
            await_(asyncio.sleep(0))
            context.slice_began = time.perf_counter()

    def _check_time(self, context: RequestContext) -> None:
        """Raise OverloadedError if the first image waited longer than `max_queue_time` to be read.

        Raise DeadlineExceededError if the deadline has passed, for any image.
        """
        waited = time.perf_counter() - context.arrived_at
        is_unread = not context.read_started_at and not context.waits
        if is_unread and waited > self._settings.max_queue_time:
            raise OverloadedError("the request waited too long to be read")
        if waited > self._settings.deadline:
            raise DeadlineExceededError("reading the images took too long")


class Preparation:
    """The steps of Recognition that take long, for one request: each may yield to the event loop.

    Raise what `prepare_picture` and `page_of_picture` raise; OverloadedError if reading begins too late,
    DeadlineExceededError if it takes too long.
    """

    def __init__(self, scheduler: Scheduler, max_pixels: int, context: RequestContext) -> None:
        self._scheduler = scheduler
        self._max_pixels = max_pixels
        self._context = context

    def prepare(self, picture: ImageSource, task: TaskCard) -> Pixels:
        """Return the picture in the model's form."""
        return self._run(picture, partial(self._prepare, picture, task))

    def page(self, picture: ImageSource) -> Page:
        """Return the picture's page for the reader."""
        return self._run(picture, partial(self._page, picture))

    def _run(self, picture: ImageSource, step: Callable[[int], _Result]) -> _Result:
        """Return the step's result; the step takes the limit of pixels, of a large picture in the thread."""
        self._scheduler.yield_if_due(self._context)
        inline_pixels = min(self._max_pixels, _MAX_INLINE_PIXELS)
        started = self._context.read_started_at
        if not isinstance(picture, np.ndarray) or picture.size <= _MAX_INLINE_PIXELS:
            # The size is in the file's header, so a larger picture is refused before it is decoded.
            try:
                return step(inline_pixels)
            except ImageTooLargeError:
                if self._max_pixels <= inline_pixels:
                    raise
                self._context.read_started_at = started
        return self._scheduler.run_in_thread(self._context, step, self._max_pixels)

    def _prepare(self, picture: ImageSource, task: TaskCard, max_pixels: int) -> Pixels:
        context = self._context
        started = time.perf_counter()
        context.read_started_at = context.read_started_at or started
        if isinstance(picture, bytes):
            try:
                picture = images.decode_for_task(picture, task, max_pixels=max_pixels)
            finally:
                decoded_at = time.perf_counter()
                context.decode_seconds += decoded_at - started
                started = decoded_at
        try:
            return prepare_picture(picture, task)
        finally:
            context.normalise_seconds += time.perf_counter() - started

    def _page(self, picture: ImageSource, max_pixels: int) -> Page:
        context = self._context
        started = time.perf_counter()
        context.read_started_at = context.read_started_at or started
        try:
            return page_of_picture(picture, max_pixels=max_pixels)
        finally:
            seconds = time.perf_counter() - started
            if isinstance(picture, np.ndarray):
                context.normalise_seconds += seconds
            else:
                context.decode_seconds += seconds
