"""Admission control: bounds how many requests a process holds and how long they wait, refuses the rest."""

import asyncio
import time
from collections.abc import Callable

from digit_client import OverloadedError
from digit_serving.gateway import context, errors
from digit_serving.gateway.asgi import ARRIVED_AT, Application, Message, Receive, Scope, Send

_SLICE_SECONDS = 0.01  # of work between two looks at the network
_STATUS, _CODE, _DETAIL = errors.problem_fields(OverloadedError)


class Admission:
    """ASGI middleware that holds at most `capacity` requests: those that arrive, wait and are in flight.

    The request beyond gets 429 with Retry-After before its body is read, so that a flood costs little, and so
    does one that has waited for `max_queue_time` seconds. Probes and metrics always pass. A request waits,
    in order of arrival, only for its turn to be worked on; one that sends slowly, or whose model is slow,
    holds up nobody. The body, of which `max_body` bytes and a little more are read, is passed on as a whole.
    """

    def __init__(
        self,
        app: Application,
        *,
        capacity: int,
        max_queue_time: float,
        max_body: int,
        on_refusal: Callable[[], None],
    ) -> None:
        self._app = app
        self._capacity = capacity
        self._max_queue_time = max_queue_time
        self._max_body = max_body
        self._on_refusal = on_refusal
        self._held = 0
        self._slice_began: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_probe = scope["path"] in context.PROBE_ROUTES
        if self._held >= self._capacity and not is_probe:
            await self._refuse(scope, send)
            return
        self._held += 1
        try:
            message = await self._receive_all(scope, receive)
            scope[ARRIVED_AT] = time.perf_counter()
            if is_probe or await self._take_turn(scope[ARRIVED_AT]):
                await self._app(scope, _replay(message), send)
            else:
                await self._refuse(scope, send)
        finally:
            self._held -= 1

    async def _take_turn(self, arrived_at: float) -> bool:
        """Cooperative scheduling: yield while this iteration of the event loop has worked for 10 ms.

        False after `max_queue_time` seconds.
        """
        while self._slice_began and time.perf_counter() - self._slice_began > _SLICE_SECONDS:
            if time.perf_counter() - arrived_at > self._max_queue_time:
                return False
            await asyncio.sleep(0)
        if self._slice_began is None:
            self._slice_began = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._end_slice)
        return True

    def _end_slice(self) -> None:
        self._slice_began = None

    async def _receive_all(self, scope: Scope, receive: Receive) -> Message:
        """The request as one message: all of a body, or enough to see that it is larger than `max_body`."""
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        parts, size, more = [], 0, int(declared) <= self._max_body
        while more and size <= self._max_body:
            message = await receive()
            if message["type"] != "http.request":
                return message
            parts.append(message["body"])
            size, more = size + len(message["body"]), message["more_body"]
        return {"type": "http.request", "body": b"".join(parts), "more_body": False}

    async def _refuse(self, scope: Scope, send: Send) -> None:
        self._on_refusal()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = context.request_id(given.decode("latin-1"))
        body = errors.encode(errors.document(_STATUS, _CODE, _DETAIL, request_id))
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"1"),
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": _STATUS, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _replay(message: Message) -> Receive:
    async def receive() -> Message:
        return message

    return receive
