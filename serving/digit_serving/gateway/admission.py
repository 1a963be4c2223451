"""Admission control: bounds the requests that a process holds and the time that they wait; 429 beyond."""

import asyncio
import time
from collections.abc import Callable

from digit_client import OverloadedError
from digit_serving.gateway import context, errors
from digit_serving.gateway.asgi import (
    ARRIVED_AT,
    SLICE_SECONDS,
    Application,
    Message,
    Receive,
    Scope,
    Send,
)

_OVERLOADED = errors.answer(OverloadedError)


class Admission:
    """ASGI middleware that holds at most `capacity` requests: arriving, waiting and in flight.

    A request beyond the capacity gets 429 with Retry-After before its body is read, so that a flood costs
    little. A request that has waited for `max_queue_time` seconds gets the same. Probes and metrics always
    pass. Requests wait for the event loop only, in order of arrival: a slow sender or a slow model delays no
    other request. A body is passed on as one message, truncated once it exceeds `max_body` bytes.
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
            if is_probe or await self._wait_for_slice(scope[ARRIVED_AT]):
                await self._app(scope, _replay(message), send)
            else:
                await self._refuse(scope, send)
        finally:
            self._held -= 1

    async def _wait_for_slice(self, arrived_at: float) -> bool:
        """Cooperative scheduling: yield until an event-loop iteration has worked less than SLICE_SECONDS.

        Return False after `max_queue_time` seconds.
        """
        while self._slice_began and time.perf_counter() - self._slice_began > SLICE_SECONDS:
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
        """Return the request as one message: the whole body, or enough to exceed `max_body`."""
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
        request_id = context.request_id_or_new(given.decode("latin-1"))
        body = errors.encode(errors.problem_document(_OVERLOADED, request_id))
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"1"),
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": _OVERLOADED.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _replay(message: Message) -> Receive:
    async def receive() -> Message:
        return message

    return receive
