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
from digit_serving.gateway.backlog import Backlog
from digit_serving.gateway.breaker import Breaker
from digit_serving.gateway.record import Call, Record, Wait

if TYPE_CHECKING:
    from digit_serving.gateway.traces import Traces

_MOST_REQUESTS = 32
"""In one call: their ids go with it as metadata, of which gRPC takes 8 kB, and each may have 128 letters."""
_GATHER_SECONDS = 0.1  # in less, 32 pictures of 280×280 are not read on a core that others share

_Kind = tuple[ModelRef, str]
"""What requests must have in common to share a call: the model, and the type of the numbers."""


class Batcher:
    """Asks the model server for several requests at once, without a timer.

    A request that finds fewer than `calls` of its kind out asks for itself and for those that have come by
    then. Later ones wait; the first of them then asks for all, `max_images` at most. For the greenlets of one
    event loop.
    """

    def __init__(
        self,
        model_server: ModelServer,
        backlog: Backlog,
        *,
        calls: int,
        max_images: int,
        traces: "Traces | None" = None,
    ) -> None:
        self._model_server = model_server
        self._backlog = backlog
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
        kind, request = (model, batch.dtype.char), _Request(batch, record, wait)
        lane, deadline = self._lanes.setdefault(kind, _Lane()), time.monotonic() + timeout
        lane.waiting.append(request)
        if lane.out < self._calls:
            lane.out += 1
            request.leads = True
            lane.gather()
        while request.leads or request.outcome is None:
            if request.leads:
                self._lead(kind, lane, request, deadline)
            elif not request.turn.wait(deadline - time.monotonic()):
                lane.leave(request)
                raise DeadlineExceededError("the model server was busy until the deadline")
        if isinstance(request.outcome, Exception):
            raise request.outcome
        return request.outcome

    def _lead(self, kind: _Kind, lane: "_Lane", leader: "_Request", deadline: float) -> None:
        """Ask for all who wait, and leave the rest to the next."""
        leader.leads = False
        leader.turn.clear()
        group = lane.next_group(self._max_images)
        if group:
            self._ask(kind[0], group, max(0.0, deadline - time.monotonic()))
        if lane.appoints():
            return
        lane.out -= 1
        # Callers may name any version: kinds that nobody asks for now must not add up.
        if not lane.out:
            del self._lanes[kind]

    def _ask(self, model: ModelRef, group: list["_Request"], timeout: float) -> None:
        outcomes: list[list[Prediction]] | Exception
        call = _call_for(group)
        trace = self._traces.begin_call(call, [request.record for request in group]) if self._traces else {}
        try:
            outcomes = self._breaker.call(model, lambda: self._answers(model, group, timeout, trace))
        except Exception as error:
            # Whatever it is, the others must hear of it.
            outcomes = error
        call.ended = time.perf_counter()
        if self._traces:
            self._traces.end_call(call, outcomes if isinstance(outcomes, Exception) else None)
        for number, request in enumerate(group):
            request.outcome = outcomes if isinstance(outcomes, Exception) else outcomes[number]
            request.turn.set()

    def _answers(
        self, model: ModelRef, group: list["_Request"], timeout: float, trace: dict[str, str]
    ) -> list[list[Prediction]]:
        batch = group[0].batch if len(group) == 1 else np.concatenate([request.batch for request in group])
        request_id = ",".join(request.record.request_id for request in group)
        with self._backlog.resting(len(group)):
            answers = self._model_server.predict(
                batch, model, timeout=timeout, request_id=request_id, trace=trace
            )
        ends = accumulate(len(request.batch) for request in group)
        return [answers[end - len(request.batch) : end] for request, end in zip(group, ends, strict=True)]


@dataclass(slots=True, eq=False)
class _Request:
    batch: Batch
    record: Record
    wait: Wait
    turn: greenlets.Event = field(default_factory=greenlets.Event)
    """Set when there is an outcome, or when it leads."""
    leads: bool = False
    """Whether it is to make the next call."""
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

    def gather(self) -> None:
        """Wait as long as requests come with each look at the network, if they are read soon."""
        known, until = 0, time.perf_counter() + _GATHER_SECONDS
        while len(self.waiting) > known and time.perf_counter() < until:
            known = len(self.waiting)
            greenlets.pause()
            greenlets.pause()

    def appoints(self) -> bool:
        """Whether one of those who wait is now to make the next call."""
        heir = next((request for request in self.waiting if not request.leads), None)
        if heir:
            heir.leads = True
            heir.turn.set()
        return heir is not None

    def leave(self, request: _Request) -> None:
        """Have a request wait no more."""
        # Else a call is out for it, whose answer nobody waits for.
        if request in self.waiting:
            self.waiting.remove(request)

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
