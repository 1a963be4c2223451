"""Dynamic batching: requests that wait at the same time share one call to the model server.

A circuit breaker lets requests for a model that times out fail at once.
"""

import asyncio
import copy
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from digit_core.errors import DeadlineExceededError, UnavailableError
from digit_core.results import Prediction
from digit_core.tfserving.async_connection import AsyncConnection
from digit_core.tfserving.codec import Batch, ModelRef
from digit_serving.gateway.context import Call, RequestContext, Wait
from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from digit_serving.gateway.tracing import RequestTracer

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

_BatchKey = tuple[ModelRef, str, tuple[int, ...]]
"""Model, dtype character and shape of an image: requests with the same key can share a call."""


class CircuitBreaker:
    """Opens a model's circuit after three timeouts in a row, so that further requests fail at once.

    An open circuit lets one request pass every `retry_seconds`; an answer closes it. Circuits are per model
    and version: a slow canary affects no other version. `clock` returns seconds, like time.monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, retry_seconds: float = 1.0) -> None:
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._circuits: dict[ModelRef, _Circuit] = {}

    def check(self, model: ModelRef) -> None:
        """Raise UnavailableError if the circuit is open and no trial request is due."""
        circuit = self._circuits.get(model)
        if circuit and circuit.timeouts >= _MAX_TIMEOUTS:
            now = self._clock()
            if now < circuit.next_trial:
                raise UnavailableError(f"circuit open: {model} timed out {circuit.timeouts} times in a row")
            circuit.next_trial = now + self._retry_seconds

    def record_timeout(self, model: ModelRef) -> None:
        """Count a request that timed out."""
        if len(self._circuits) >= _MAX_CIRCUITS:
            self._circuits.clear()
        self._circuits.setdefault(model, _Circuit()).timeouts += 1

    def record_answer(self, model: ModelRef) -> None:
        """Close the circuit."""
        self._circuits.pop(model, None)


@dataclass(slots=True)
class _Circuit:
    timeouts: int = 0
    """Timeouts in a row."""
    next_trial: float = -math.inf
    """Earliest time of the next trial request, by the clock."""


class Batcher:
    """Sends the requests that arrive during a call together in the next call, without a timer.

    Each model has at most `max_inflight_calls` calls in flight. A call holds up to `max_images` images, or a
    single request that has more. For coroutines of one event loop.
    """

    def __init__(
        self,
        model_server: AsyncConnection,
        settings: Settings,
        tracer: "RequestTracer | None" = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self._model_server = model_server
        self._max_inflight_calls = settings.max_inflight_calls
        self._max_images = settings.max_images
        self._tracer = tracer
        self._breaker = breaker or CircuitBreaker()
        self._queues: dict[_BatchKey, _BatchQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def predict(
        self, batch: Batch, model: ModelRef, *, timeout: float, context: RequestContext
    ) -> list[Prediction]:
        """Return the predictions for the n images of the batch, in order, within `timeout` seconds.

        Record the wait and the call in the context. Raise what AsyncConnection.predict raises, and
        UnavailableError while the circuit of the model is open.
        """
        self._breaker.check(model)
        loop = asyncio.get_running_loop()
        wait = Wait(time.perf_counter())
        context.waits.append(wait)
        request = _Request(batch, context, wait, loop.create_future(), loop.time() + timeout)
        self._enqueue((model, batch.dtype.char, batch.shape[1:]), request)
        timer = loop.call_at(request.deadline, self._expire, model, request)
        try:
            return await request.future
        finally:
            timer.cancel()
            # Break the reference cycle of future, error and this frame, which keeps a request's body alive.
            del request

    def _enqueue(self, key: _BatchKey, request: "_Request") -> None:
        queue = self._queues.setdefault(key, _BatchQueue())
        queue.waiting.append(request)
        if queue.inflight < self._max_inflight_calls:
            queue.inflight += 1
            task = asyncio.create_task(self._process(key, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _expire(self, model: ModelRef, request: "_Request") -> None:
        if not request.future.done():
            self._breaker.record_timeout(model)
            request.future.set_exception(DeadlineExceededError("the model server did not answer in time"))

    async def _process(self, key: _BatchKey, queue: "_BatchQueue") -> None:
        """Send batch after batch until the queue is empty."""
        model, *_ = key
        # Two iterations: only requests that arrived together can join.
        await queue.collect(quiet_iterations=2)
        while group := queue.next_group(self._max_images):
            await self._call(model, group)
            # Callers that have just been answered may join with their next request: a fuller call costs less.
            await queue.collect(_QUIET_ITERATIONS)
        queue.inflight -= 1
        # Remove unused queues: callers may name any version.
        if not queue.inflight:
            del self._queues[key]

    async def _call(self, model: ModelRef, group: list["_Request"]) -> None:
        """Resolve the requests' futures with their predictions, or all with the call's error."""
        call = _start_call(group)
        try:
            answers = await self._dispatch(model, group, call)
        except Exception as error:
            self._end_call(call, error)
            # Only timeouts open the circuit: any other error is an answer.
            if not isinstance(error, DeadlineExceededError):
                self._breaker.record_answer(model)
            for request in group:
                if not request.future.done():
                    # Copy the error: a shared one would collect, and keep alive, the frames of all waiters.
                    request.future.set_exception(copy.copy(error))
        else:
            self._end_call(call, None)
            self._breaker.record_answer(model)
            for request, answer in zip(group, answers, strict=True):
                if not request.future.done():
                    request.future.set_result(answer)

    def _end_call(self, call: Call, error: Exception | None) -> None:
        call.ended_at = time.perf_counter()
        if self._tracer:
            self._tracer.end_call(call, error)

    async def _dispatch(self, model: ModelRef, group: list["_Request"], call: Call) -> list[list[Prediction]]:
        trace = (
            self._tracer.start_call(call, [request.context for request in group]) if self._tracer else None
        )
        batch = group[0].batch if len(group) == 1 else np.concatenate([request.batch for request in group])
        # Use the latest deadline: requests with an earlier one expire by their own timers.
        deadline = max(request.deadline for request in group)
        answers = await self._model_server.predict(
            batch,
            model,
            timeout=max(0.0, deadline - asyncio.get_running_loop().time()),
            request_id=",".join(request.context.request_id for request in group),
            trace=trace,
        )
        ends = accumulate(len(request.batch) for request in group)
        return [answers[end - len(request.batch) : end] for request, end in zip(group, ends, strict=True)]


@dataclass(slots=True, eq=False)
class _Request:
    batch: Batch
    context: RequestContext
    wait: Wait
    future: asyncio.Future[list[Prediction]]
    """Done before the call ends if the caller was cancelled or the deadline passed."""
    deadline: float
    """Time by the event loop's clock."""


@dataclass(slots=True)
class _BatchQueue:
    """Waiting requests of one key."""

    inflight: int = 0
    """Tasks that process the queue, each with one call in flight."""
    waiting: deque[_Request] = field(default_factory=deque)

    async def collect(self, quiet_iterations: int) -> None:
        """Yield until `quiet_iterations` event-loop iterations in a row add no request, at most 100 ms."""
        count, quiet, end = 0, 0, time.perf_counter() + _MAX_COLLECT_SECONDS
        while quiet < quiet_iterations and time.perf_counter() < end:
            quiet = 0 if len(self.waiting) > count else quiet + 1
            count = len(self.waiting)
            await asyncio.sleep(0)

    def next_group(self, max_images: int) -> list[_Request]:
        """Pop the oldest requests: up to `max_images` images, or a single request that has more."""
        group: list[_Request] = []
        images, size = 0, 0
        while self.waiting and len(group) < _MAX_REQUESTS:
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


def _start_call(group: list[_Request]) -> Call:
    """Create the call that ends the wait of these requests; the first one is the batch leader."""
    images = sum(len(request.batch) for request in group)
    call = Call(images, len(group), started_at=time.perf_counter())
    for request in group:
        request.wait.call = call
    group[0].wait.is_leader = True
    return call
