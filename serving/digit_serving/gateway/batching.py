"""Requests that wait at the same time share one call to the model server."""

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from digit_client.errors import DeadlineExceededError
from digit_client.model_server import ModelServer
from digit_client.predictions import Prediction
from digit_client.wire import Batch, ModelRef
from digit_serving import greenlets
from digit_serving.gateway.breaker import Breaker
from digit_serving.gateway.record import Call, Record, Wait

if TYPE_CHECKING:
    from digit_serving.gateway.traces import Traces

_MOST_REQUESTS = 32
"""In one call: their ids go with it as metadata, of which gRPC takes 8 kB, and each may have 128 letters."""

_Kind = tuple[ModelRef, str]
"""What requests must have in common to share a call: the model, and the type of the numbers."""


class Batcher:
    """Asks the model server for several requests at once, without waiting for more to come.

    A request that finds fewer than `calls` of its kind out is asked for at once. Those that come later wait;
    the first of them then asks for all, `max_images` at most. For the greenlets of one event loop.
    """

    def __init__(
        self, model_server: ModelServer, *, calls: int, max_images: int, traces: "Traces | None" = None
    ) -> None:
        self._model_server = model_server
        self._calls = calls
        self._max_images = max_images
        self._traces = traces
        self._breaker = Breaker()
        self._lanes: dict[_Kind, _Lane] = {}

    def predict(self, batch: Batch, model: ModelRef, *, timeout: float, record: Record) -> list[Prediction]:
        """The predictions for the n images of the batch, in their order, within `timeout` seconds.

        The record gets the wait and the call. Raises what ModelServer.predict raises, and UnavailableError in
        place of a call to a model that keeps no deadline.
        """
        wait = Wait(time.perf_counter())
        record.waits.append(wait)
        kind, request = (model, batch.dtype.char), _Request(batch, record, wait, time.monotonic() + timeout)
        if not self._goes_at_once(kind, request) and not request.turn.wait(timeout):
            self._leave(kind, request)
        if request.group:
            self._ask(kind, request.group, max(0.0, request.deadline - time.monotonic()))
            # It holds this request as well, and would only go with the next collection of garbage.
            request.group = None
        if isinstance(request.outcome, list):
            return request.outcome
        raise request.outcome or DeadlineExceededError("the model server was busy until the deadline")

    def _goes_at_once(self, kind: _Kind, request: "_Request") -> bool:
        lane = self._lanes.setdefault(kind, _Lane())
        if lane.out < self._calls:
            lane.out += 1
            request.group = [request]
            return True
        lane.waiting.append(request)
        return False

    def _leave(self, kind: _Kind, request: "_Request") -> None:
        lane = self._lanes.get(kind)
        # Else a call is out for it, whose answer nobody waits for.
        if lane and request in lane.waiting:
            lane.waiting.remove(request)

    def _ask(self, kind: _Kind, group: list["_Request"], timeout: float) -> None:
        outcomes: list[list[Prediction]] | Exception
        call = _call_for(group)
        trace = self._traces.begin_call(call, [request.record for request in group]) if self._traces else {}
        try:
            with self._breaker.watching(kind[0]):
                outcomes = self._answers(kind[0], group, timeout, trace)
        except Exception as error:
            # Whatever it is, the others must hear of it.
            outcomes = error
        call.ended = time.perf_counter()
        if self._traces:
            self._traces.end_call(call, outcomes if isinstance(outcomes, Exception) else None)
        self._pass_on(kind)
        for number, request in enumerate(group):
            request.outcome = outcomes if isinstance(outcomes, Exception) else outcomes[number]
            if request is not group[0]:
                request.turn.set()

    def _answers(
        self, model: ModelRef, group: list["_Request"], timeout: float, trace: dict[str, str]
    ) -> list[list[Prediction]]:
        batch = group[0].batch if len(group) == 1 else np.concatenate([request.batch for request in group])
        request_id = ",".join(request.record.request_id for request in group)
        answers = self._model_server.predict(
            batch, model, timeout=timeout, request_id=request_id, trace=trace
        )
        ends = accumulate(len(request.batch) for request in group)
        return [answers[end - len(request.batch) : end] for request, end in zip(group, ends, strict=True)]

    def _pass_on(self, kind: _Kind) -> None:
        """The next in the lane asks for as many as may go together."""
        lane = self._lanes[kind]
        group = lane.next_group(self._max_images)
        if group:
            group[0].group = group
            group[0].turn.set()
            return
        lane.out -= 1
        # Callers may name any version: kinds that nobody asks for now must not add up.
        if not lane.out:
            del self._lanes[kind]


@dataclass(slots=True, eq=False)
class _Request:
    batch: Batch
    record: Record
    wait: Wait
    deadline: float
    turn: greenlets.Event = field(default_factory=greenlets.Event)
    """Set when there is an outcome or this request is to ask for its `group`."""
    group: list["_Request"] | None = None
    outcome: list[Prediction] | Exception | None = None


def _call_for(group: list[_Request]) -> Call:
    call = Call(sum(len(request.batch) for request in group), len(group), time.perf_counter())
    for request in group:
        request.wait.call = call
    group[0].wait.leads = True
    return call


@dataclass(slots=True)
class _Lane:
    """The requests of one kind: how many calls are `out`, and who waits for the next."""

    out: int = 0
    waiting: deque[_Request] = field(default_factory=deque)

    def next_group(self, max_images: int) -> list[_Request]:
        """Those who waited longest, taken off the queue; together `max_images`, or one that has more."""
        group: list[_Request] = []
        images = 0
        while self.waiting and len(group) < _MOST_REQUESTS:
            if group and images + len(self.waiting[0].batch) > max_images:
                break
            group.append(self.waiting.popleft())
            images += len(group[-1].batch)
        return group
