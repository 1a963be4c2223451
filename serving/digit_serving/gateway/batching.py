"""Dynamic batching: requests that wait at the same time share a call.

A circuit breaker lets requests for a model that times out fail at once.
"""

import asyncio
import copy
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from digit_core.errors import (
    AuthenticationError,
    DeadlineExceededError,
    ModelNotFoundError,
    OverloadedError,
    UnavailableError,
    without_tracebacks,
)
from digit_core.results import Answer
from digit_core.tfserving.codec import Batch, ModelRef
from digit_core.tfserving.connection import AsyncConnection, ServedVersion
from digit_serving.gateway.request import Call, Wait, max_answers
from digit_serving.gateway.settings import Settings

_MAX_REQUESTS = 32
"""Requests per call: their IDs, up to 128 bytes each, travel as metadata, which gRPC limits to 8 kB."""
MAX_CALL_BYTES = 16 * 2**20
"""Largest model input of a call: a compressed picture may have a thousandth of its size."""
_QUIET_ITERATIONS = 12
"""Event-loop iterations without a new request after which the next batch is complete. An idle iteration takes
some 10 µs; a caller on the same machine sends its next request within 100 µs of its answer."""
_MAX_COLLECT_SECONDS = 0.1
"""Longest collection of a batch. Decoding 32 pictures of 280×280 takes less on a core of its own."""
_MAX_TIMEOUTS = 3
"""Timeouts in a row that open a circuit."""
_MAX_CIRCUITS = 1000
"""Circuits kept in memory, since callers may name any version. Beyond this number all are discarded."""

_OUTAGES = (AuthenticationError, ModelNotFoundError, OverloadedError, UnavailableError)
"""Errors of the model server or of a version, which no request causes."""

_BatchKey = tuple[ServedVersion, str, tuple[int, ...]]
"""Version for which images are prepared, dtype character and shape of an image: requests with the same key
can share a call."""
_Outcome = list[Answer] | ServedVersion | Exception
"""Answers to the images of a call, the version that has to be asked instead, or the call's error."""


class Batcher:
    """Sends the requests that arrive during a call together in the next call, without a timer.

    Each model has at most `max_inflight_calls` calls in flight. A call holds up to `max_images` images, or a
    single request that has more. For coroutines of one event loop.
    """

    def __init__(
        self, model_server: AsyncConnection, settings: Settings, breaker: "CircuitBreaker | None" = None
    ) -> None:
        self._model_server = model_server
        self._max_inflight_calls = settings.max_inflight_calls
        self._max_images = settings.max_images
        self._breaker = breaker or CircuitBreaker()
        self._queues: dict[_BatchKey, _BatchQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def predict(self, batch: Batch, served: ServedVersion, wait: Wait) -> list[Answer] | ServedVersion:
        """Return the answers to the images of a batch that was prepared for a version, in their order.

        Return the version that has to be asked instead if that has another card. Raise errors of the call,
        DeadlineExceededError at the wait's deadline, and UnavailableError if the circuit of the model is
        open.
        """
        seconds = wait.deadline - time.monotonic()
        if seconds <= 0:
            raise DeadlineExceededError("the request has no time left")
        self._breaker.check(served.model)
        loop = asyncio.get_running_loop()
        request = _Waiting(batch, wait, loop.create_future())
        self._enqueue((served, batch.dtype.char, batch.shape[1:]), request)
        timer = loop.call_later(seconds, self._expire, served.model, request)
        try:
            return await request.future
        finally:
            timer.cancel()
            # Break the reference cycle of future, error and this frame, which keeps a request's body alive.
            del request

    def _enqueue(self, key: _BatchKey, request: "_Waiting") -> None:
        queue = self._queues.setdefault(key, _BatchQueue())
        queue.waiting.append(request)
        if queue.inflight < self._max_inflight_calls:
            queue.inflight += 1
            task = asyncio.create_task(self._process(key, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _expire(self, model: ModelRef, request: "_Waiting") -> None:
        if not request.future.done():
            self._breaker.record_timeout(model)
            request.future.set_exception(DeadlineExceededError("the model server did not answer in time"))

    async def _process(self, key: _BatchKey, queue: "_BatchQueue") -> None:
        """Send batch after batch until the queue is empty."""
        most = min(self._max_images, max_answers(key[0].card))
        # Two iterations: only requests that arrived together can join.
        await queue.collect(quiet_iterations=2)
        while group := queue.next_group(most):
            # Additive increase, multiplicative decrease: a caller whose pictures fail every shared call would
            # otherwise cost all others a call of their own.
            if await self._call(key[0], group):
                queue.max_requests = min(queue.max_requests + 1, _MAX_REQUESTS)
            else:
                queue.max_requests = len(group) // 2
            # Callers that have just been answered may join with their next request: a fuller call costs less.
            # A lone caller would join nobody.
            if len(group) > 1 or queue.waiting:
                await queue.collect(_QUIET_ITERATIONS)
        queue.inflight -= 1
        # Remove unused queues: callers may name any version.
        if not queue.inflight:
            del self._queues[key]

    async def _call(self, served: ServedVersion, group: list["_Waiting"]) -> bool:
        """Resolve the requests' futures with their answers or errors. Return True if one call was enough.

        Fault isolation: if one of the requests may have made a shared call fail, each is asked again alone,
        once. These calls follow each other, since the number of calls in flight is limited.
        """
        outcome = await self._ask(served, group)
        is_failure = isinstance(outcome, Exception)
        if len(group) == 1 or not is_failure or isinstance(outcome, (*_OUTAGES, DeadlineExceededError)):
            self._resolve(served.model, group, outcome)
            return True
        for request in group:
            if request.future.done():
                continue
            # An outage ends the repetition: a server that is down must not get a call for each request.
            if not isinstance(outcome, _OUTAGES):
                try:
                    self._breaker.check(served.model)
                    outcome = await self._ask(served, [request])
                except UnavailableError as error:
                    outcome = error
            self._resolve(served.model, [request], outcome)
        return False

    async def _ask(self, served: ServedVersion, group: list["_Waiting"]) -> _Outcome:
        """Return the answers to a group's images, the version that has to be asked instead, or the error."""
        waits = [request.wait for request in group]
        call = Call(sum(len(request.batch) for request in group), time.monotonic())
        for wait in waits:
            wait.call = call
        waits[0].is_leader = True
        outcome: _Outcome
        try:
            outcome = await self._model_server.predict(
                group[0].batch if len(group) == 1 else np.concatenate([request.batch for request in group]),
                served,
                # The latest deadline: requests with an earlier one expire by their own timers.
                deadline=max(wait.deadline for wait in waits),
                request_id=",".join(wait.request_id for wait in waits),
                trace=waits[0].trace,
            )
        except Exception as error:
            outcome = without_tracebacks(error)
        call.ended_at = time.monotonic()
        # Only timeouts open the circuit: any other error is an answer.
        if not isinstance(outcome, DeadlineExceededError):
            self._breaker.record_answer(served.model)
        return outcome

    def _resolve(self, model: ModelRef, group: list["_Waiting"], outcome: _Outcome) -> None:
        """Give each request that still waits its part of the answers, or a copy of the error."""
        end = 0
        for request in group:
            start, end = end, end + len(request.batch)
            if request.future.done():
                continue
            if isinstance(outcome, Exception):
                if isinstance(outcome, DeadlineExceededError):
                    self._breaker.record_timeout(model)
                # Copy the error: a shared one would collect, and keep alive, the frames of all waiters.
                request.future.set_exception(copy.copy(outcome))
            else:
                request.future.set_result(
                    outcome if isinstance(outcome, ServedVersion) else outcome[start:end]
                )


@dataclass(slots=True, eq=False)
class _Waiting:
    """Request that waits for a call."""

    batch: Batch
    wait: Wait
    future: asyncio.Future[list[Answer] | ServedVersion]
    """Done before the call ends if the caller was cancelled or the deadline passed."""


@dataclass(slots=True)
class _BatchQueue:
    """Waiting requests of one key."""

    inflight: int = 0
    """Tasks that process the queue, each with one call in flight."""
    waiting: deque[_Waiting] = field(default_factory=deque)
    max_requests: int = _MAX_REQUESTS
    """Most requests of the next call: fewer after a shared call that one of them made fail."""

    async def collect(self, quiet_iterations: int) -> None:
        """Yield until `quiet_iterations` event-loop iterations in a row add no request, at most 100 ms."""
        count, quiet, end = 0, 0, time.monotonic() + _MAX_COLLECT_SECONDS
        while quiet < quiet_iterations and time.monotonic() < end:
            quiet = 0 if len(self.waiting) > count else quiet + 1
            count = len(self.waiting)
            await asyncio.sleep(0)

    def next_group(self, max_images: int) -> list[_Waiting]:
        """Pop the oldest requests: up to `max_images` images, or a single request that has more."""
        group: list[_Waiting] = []
        images, size = 0, 0
        while self.waiting and len(group) < self.max_requests:
            request = self.waiting[0]
            is_full = images + len(request.batch) > max_images or size + request.batch.nbytes > MAX_CALL_BYTES
            if group and is_full:
                break
            self.waiting.popleft()
            if not request.future.done():
                group.append(request)
                images += len(request.batch)
                size += request.batch.nbytes
        return group


class CircuitBreaker:
    """Opens a model's circuit after three timeouts in a row, so that further requests fail at once.

    An open circuit lets one request pass every `retry_seconds`; an answer closes it. Circuits are per model
    and version: a slow version affects no other. `clock` returns seconds, like time.monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, retry_seconds: float = 1.0) -> None:
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._timeouts: Counter[ModelRef] = Counter()
        """Timeouts in a row."""
        self._next_trials: dict[ModelRef, float] = {}
        """Earliest time of the next trial request of an open circuit, by the clock."""

    def check(self, model: ModelRef) -> None:
        """Raise UnavailableError if the circuit is open and no trial request is due."""
        if (timeouts := self._timeouts.get(model, 0)) >= _MAX_TIMEOUTS:
            now = self._clock()
            if now < self._next_trials.get(model, -math.inf):
                raise UnavailableError(f"circuit open: {model} timed out {timeouts} times in a row")
            self._next_trials[model] = now + self._retry_seconds

    def record_timeout(self, model: ModelRef) -> None:
        """Count a request that timed out."""
        if len(self._timeouts) >= _MAX_CIRCUITS:
            self._timeouts.clear()
            self._next_trials.clear()
        self._timeouts[model] += 1

    def record_answer(self, model: ModelRef) -> None:
        """Close the circuit."""
        self._timeouts.pop(model, None)
        self._next_trials.pop(model, None)
