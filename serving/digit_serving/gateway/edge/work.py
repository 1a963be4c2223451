"""Work on what callers send: in slices of the event loop, or one at a time in a thread, within deadlines."""

import asyncio
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from digit_core.errors import DeadlineExceededError, DigitError, OverloadedError
from digit_core.images import ImageFile, Pixels
from digit_core.images.files import BYTE_COST
from digit_core.recognition import Compute, Prepare, Prepared
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.edge.slices import Slices
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.settings import Settings
from digit_serving.sockets import network

_MAX_INLINE = 1_000_000
"""Largest cost of work in the event loop: 10 ms, of a hostile file 30 ms. What costs more runs in the thread.

The unit is the time in which a pixel is decoded. A byte of JSON costs as much to parse.
"""
_WEIGHT = 0.25
"""Weight of the latest call in the average duration of calls in the thread."""

_WAITED = "the request waited too long to be read"
_TOOK = "reading the images took too long"

_Result = TypeVar("_Result")
_Job: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class Work:
    """Work that takes long: it yields to the event loop, or runs in the single thread for large pictures."""

    def __init__(self, settings: Settings) -> None:
        self._max_pixels = settings.max_pixels
        self.slices = Slices()
        # One thread: two threads would need the memory of two large pictures.
        self._executor = ThreadPoolExecutor(1, "large")
        self.large = threading.Lock()
        """Held while a picture is decoded in a thread, by another thread too."""
        self._queued = Counter[str]()
        """Calls that wait for the thread, or run in it, by caller."""
        self._jobs: dict[str, deque[_Job]] = {}
        """Calls that wait, by caller; the first caller is the next."""
        self._lock = threading.Lock()
        """Held while the jobs change."""
        self._seconds = 0.0
        """Moving average of a call's duration (EWMA)."""

    def answer(self, context: RequestContext, request: Prepare | Compute) -> Any:
        """Answer a request of recognition. Raise its errors, and those of `run`."""
        if isinstance(request, Compute):
            return self.run(context, request.cost, request)
        picture = request.picture
        if isinstance(picture, bytes) and len(picture) * BYTE_COST > _MAX_INLINE:
            # Opening a large file takes long, too.
            return self.run_in_thread(
                context, lambda: _finish(context, request, request.open(self._max_pixels))
            )
        opened = self.run(context, 0, request.open, self._max_pixels)
        cost = opened.cost if isinstance(opened, ImageFile) else opened.size
        return self.run(context, cost, _finish, context, request, opened)

    def run(
        self, context: RequestContext, cost: int, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        """Call the function: in the event loop, which gets its turn between two calls, or in the thread.

        Raise OverloadedError if the reading of a request begins too late, DeadlineExceededError if it takes
        too long.
        """
        if cost > _MAX_INLINE:
            return self.run_in_thread(context, function, *arguments)
        if not self.slices.take():
            self._check_time(context)
            if not await_(self.slices.wait(context.deadline)):
                raise DeadlineExceededError(_TOOK)
        return function(*arguments)

    def run_in_thread(
        self, context: RequestContext, function: Callable[..., _Result], *arguments: Any
    ) -> _Result:
        """Call the function in the thread, unless the request waited too long, or would.

        Callers take turns. A call can't be interrupted: at the deadline the request is answered, and the
        thread goes on.
        """
        caller = context.key or network(context.client)

        def check_time_and_call() -> _Result:
            self._check_time(context)
            started = time.monotonic()
            try:
                with self.large:
                    return function(*arguments)
            except DigitError as error:
                # Clear the frames, which keep the pixels alive: the thread goes on with other pictures.
                traceback.clear_frames(error.__traceback__)
                raise
            finally:
                seconds = time.monotonic() - started
                self._seconds += _WEIGHT * (seconds - self._seconds) if self._seconds else seconds

        # Round robin: of each other caller, at most one call more than this caller's own runs before.
        own = self._queued[caller]
        self._check_time(context, self._seconds * sum(min(own + 1, each) for each in self._queued.values()))
        self._queued[caller] += 1
        job = Future[_Result]()
        with self._lock:
            self._jobs.setdefault(caller, deque()).append((job, check_time_and_call))
        self._executor.submit(self._run_next)
        try:
            return await_(self._wait(context, job))
        finally:
            self._queued -= Counter((caller,))

    def _run_next(self) -> None:
        """Run the next caller's job, in the thread; the caller becomes the last one."""
        with self._lock:
            caller = next(iter(self._jobs))
            jobs = self._jobs.pop(caller)
            job, call = jobs.popleft()
            if jobs:
                self._jobs[caller] = jobs
        if job.set_running_or_notify_cancel():
            try:
                job.set_result(call())
            except BaseException as error:
                job.set_exception(error)
        # Break the reference cycle of the job, its error and this frame, as ThreadPoolExecutor does.
        del job, call

    async def _wait(self, context: RequestContext, job: Future[_Result]) -> _Result:
        """Return the job's result; cancel it if it doesn't start or end in time."""
        call = asyncio.wrap_future(job)
        try:
            if not _is_read(context):
                await asyncio.wait((call,), timeout=max(0.0, context.latest_start - time.monotonic()))
                # Only a job that has not started can be cancelled.
                if job.cancel():
                    raise OverloadedError(_WAITED)
            await asyncio.wait((call,), timeout=max(0.0, context.deadline - time.monotonic()))
            if not call.done():
                raise DeadlineExceededError(_TOOK)
            return call.result()
        finally:
            call.cancel()

    def _check_time(self, context: RequestContext, expected: float = 0.0) -> None:
        """Raise OverloadedError if the first image is not read by the latest start.

        Raise DeadlineExceededError if the deadline passes before, for any image. `expected` are the seconds
        that it still has to wait.
        """
        now = time.monotonic() + expected
        if not _is_read(context) and now > context.latest_start:
            raise OverloadedError(_WAITED)
        if now > context.deadline:
            raise DeadlineExceededError(_TOOK)


def _is_read(context: RequestContext) -> bool:
    """True if the reading of the request's first image has begun."""
    return bool(context.decode_started_at or context.waits)


def _finish(context: RequestContext, request: Prepare, opened: ImageFile | Pixels) -> Prepared:
    """Decode and prepare the picture, and record both durations: a file's page counts as decoding."""
    started = time.monotonic()
    context.decode_started_at = context.decode_started_at or started
    if isinstance(opened, ImageFile):
        try:
            if request.task is None:
                return request.finish(opened, opened.decode())
            pixels = opened.decode()
        finally:
            decoded_at = time.monotonic()
            context.stages["decode"] += decoded_at - started
    else:
        pixels, decoded_at = opened, started
    try:
        return request.finish(opened, pixels)
    finally:
        context.stages["normalise"] += time.monotonic() - decoded_at
