"""Dynamic batching: requests that wait at the same time share one call to the model server."""

import asyncio
import copy
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from digit_client import DeadlineExceededError, Prediction
from digit_client.tfserving.codec import Batch, ModelRef
from digit_client.tfserving.model_server import AsyncModelServer
from digit_serving.gateway.circuit_breaker import CircuitBreaker
from digit_serving.gateway.context import Call, RequestContext, Wait

if TYPE_CHECKING:
    from digit_serving.gateway.tracing import Traces

_MAX_REQUESTS = 32
"""Requests in a call: their ids are its metadata, of which gRPC takes 8 kB; an id has up to 128 letters."""
_QUIET_ITERATIONS = 12  # an idle one takes some 10 µs; a caller on this machine asks again within 100
_MAX_COLLECT_SECONDS = 0.1  # decoding 32 pictures of 280×280 takes less on a core of its own

_BatchKey = tuple[ModelRef, str]
"""Requests share a call if they have the same model and the same type of numbers."""


class Batcher:
    """Sends the requests that have come by the time the last call has ended, without a timer.

    A model has at most `max_inflight_calls` calls out; requests that come meanwhile wait and go together,
    up to `max_images`, or alone where one has more. For coroutines of one event loop.
    """

    def __init__(
        self,
        model_server: AsyncModelServer,
        *,
        max_inflight_calls: int,
        max_images: int,
        traces: "Traces | None" = None,
    ) -> None:
        self._model_server = model_server
        self._max_inflight_calls = max_inflight_calls
        self._max_images = max_images
        self._traces = traces
        self._breaker = CircuitBreaker()
        self._queues: dict[_BatchKey, _BatchQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def predict(
        self, batch: Batch, model: ModelRef, *, timeout: float, context: RequestContext
    ) -> list[Prediction]:
        """The predictions for the n images of the batch, in their order, within `timeout` seconds.

        The context gets the wait and the call. Raises what AsyncModelServer.predict raises, and
        UnavailableError while the circuit of the model is open.
        """
        self._breaker.check(model)
        loop = asyncio.get_running_loop()
        wait = Wait(time.perf_counter())
        context.waits.append(wait)
        request = _Request(batch, context, wait, loop.create_future(), loop.time() + timeout)
        self._enqueue((model, batch.dtype.char), request)
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
            task = asyncio.create_task(self._dispatch(key, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _expire(self, model: ModelRef, request: "_Request") -> None:
        if not request.future.done():
            self._breaker.record_timeout(model)
            request.future.set_exception(DeadlineExceededError("the model server did not answer in time"))

    async def _dispatch(self, key: _BatchKey, queue: "_BatchQueue") -> None:
        """Call for the requests that wait until none is left."""
        await queue.collect(quiet_iterations=2)
        while group := queue.next_group(self._max_images):
            await self._call(key[0], group)
            # Callers who have just been answered join with their next request: a fuller call costs less.
            await queue.collect(_QUIET_ITERATIONS)
        queue.inflight -= 1
        # Callers may name any version: queues that nobody uses must not add up.
        if not queue.inflight:
            del self._queues[key]

    async def _call(self, model: ModelRef, group: list["_Request"]) -> None:
        """Give each request of the group its predictions, or all of them the error of the call."""
        call = _call_for(group)
        try:
            answers = await self._ask(model, group, call)
        except Exception as error:
            self._end(call, error)
            if not isinstance(error, DeadlineExceededError):
                self._breaker.record_answer(model)
            for request in group:
                if not request.future.done():
                    # A copy each: one error would gather, and keep alive, the frames of all who raise it.
                    request.future.set_exception(copy.copy(error))
        else:
            self._end(call, None)
            self._breaker.record_answer(model)
            for request, answer in zip(group, answers, strict=True):
                if not request.future.done():
                    request.future.set_result(answer)

    def _end(self, call: Call, error: Exception | None) -> None:
        call.ended = time.perf_counter()
        if self._traces:
            self._traces.end_call(call, error)

    async def _ask(self, model: ModelRef, group: list["_Request"], call: Call) -> list[list[Prediction]]:
        trace = (
            self._traces.begin_call(call, [request.context for request in group]) if self._traces else None
        )
        batch = group[0].batch if len(group) == 1 else np.concatenate([request.batch for request in group])
        # The last deadline: the others expire by themselves, and leave the call to those who still wait.
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
    """Done early where its caller was cancelled or its deadline has passed."""
    deadline: float
    """By the event loop's clock."""


def _call_for(group: list[_Request]) -> Call:
    call = Call(sum(len(request.batch) for request in group), len(group), time.perf_counter())
    for request in group:
        request.wait.call = call
    group[0].wait.leads = True
    return call


@dataclass(slots=True)
class _BatchQueue:
    """Requests of one key that wait, and how many dispatch tasks are under way."""

    inflight: int = 0
    waiting: deque[_Request] = field(default_factory=deque)

    async def collect(self, quiet_iterations: int) -> None:
        """Yield until so many iterations of the event loop bring no new request, at most 100 ms."""
        count, quiet, end = 0, 0, time.perf_counter() + _MAX_COLLECT_SECONDS
        while quiet < quiet_iterations and time.perf_counter() < end:
            quiet = 0 if len(self.waiting) > count else quiet + 1
            count = len(self.waiting)
            await asyncio.sleep(0)

    def next_group(self, max_images: int) -> list[_Request]:
        """Take those who waited longest off the queue; together `max_images`, or one that has more."""
        group: list[_Request] = []
        images = 0
        while self.waiting and len(group) < _MAX_REQUESTS:
            request = self.waiting[0]
            if group and images + len(request.batch) > max_images:
                break
            self.waiting.popleft()
            if not request.future.done():
                group.append(request)
                images += len(request.batch)
        return group
