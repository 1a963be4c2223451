"""Cooperative scheduling: work on images in slices of the event loop or in a thread, within the deadline."""

import asyncio
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from digit_client import DeadlineExceededError, ImageError, OverloadedError
from digit_serving.gateway.asgi import SLICE_SECONDS, await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.settings import Settings

_Result = TypeVar("_Result")


class Scheduler:
    """Schedules the work on a request's images: what takes long, one at a time in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # One thread: two threads would need the memory of two large pictures.
        self._executor = ThreadPoolExecutor(1, "large")

    def run_in_thread(
        self, context: RequestContext, index: int, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        """Call the function in the single thread for long work, unless the request waited too long."""

        def check_time_and_call() -> _Result:
            self._check_time(context, index)
            try:
                return function(*arguments)
            except ImageError as error:
                # Clear the frames, which keep the pixels alive: the thread goes on with other pictures.
                traceback.clear_frames(error.__traceback__)
                raise

        return await_(asyncio.get_running_loop().run_in_executor(self._executor, check_time_and_call))

    def yield_if_due(self, slice_began: float, context: RequestContext, index: int) -> float:
        """Yield to the event loop after SLICE_SECONDS of work. Return the start of the current slice."""
        if time.perf_counter() - slice_began <= SLICE_SECONDS:
            return slice_began
        self._check_time(context, index)
        await_(asyncio.sleep(0))
        return time.perf_counter()

    def _check_time(self, context: RequestContext, index: int) -> None:
        """Raise OverloadedError if the first image waited longer than `max_queue_time` to be read.

        Raise DeadlineExceededError if the deadline has passed, for any image.
        """
        waited = time.perf_counter() - context.arrived_at
        # A request that has called the model has been read once already.
        if not index and not context.waits and waited > self._settings.max_queue_time:
            raise OverloadedError("the request waited too long to be read")
        if waited > self._settings.deadline:
            raise DeadlineExceededError("reading the images took too long")
