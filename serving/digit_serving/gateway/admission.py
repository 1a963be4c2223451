"""Admission control: bounds the requests that a process holds and the time that they wait; 429 beyond."""

import asyncio
import time
from collections.abc import Callable

import orjson

from digit_core.errors import OverloadedError
from digit_serving.gateway import errors, request
from digit_serving.gateway.bridge import (
    ARRIVED_AT,
    SLICE_SECONDS,
    Application,
    Message,
    Receive,
    Scope,
    Send,
)
from digit_serving.gateway.settings import Settings

_OVERLOADED = errors.problem_kind(OverloadedError)
_UNCOUNTED_BYTES = 64 * 1024
"""Bytes of a body that arrive before its request counts; uvicorn buffers as many."""


class Admission:
    """ASGI middleware that holds at most `queue_capacity` requests: arriving, waiting and in flight.

    A request beyond the capacity gets 429 with Retry-After before its body is read, so that a flood costs
    little. A request that has waited for `max_queue_time` seconds gets the same. Probes and metrics always
    pass. Requests wait for the event loop only, in order of arrival: a slow sender or a slow model delays no
    other request. A request counts once its body, or 64 KiB of it, has arrived: callers that send a few bytes
    and wait take no other's place. A body is passed on as one message, truncated once it exceeds `max_body`
    bytes.
    """

    def __init__(self, app: Application, settings: Settings, on_refusal: Callable[[str], None]) -> None:
        self._app = app
        self._capacity = settings.queue_capacity
        self._max_queue_time = settings.max_queue_time
        self._max_body = settings.max_body
        self._on_refusal = on_refusal
        self._held = 0
        self._slice_began: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_probe = scope["path"] in request.PROBE_ROUTES
        if self._held >= self._capacity and not is_probe:
            await self._refuse(scope, send)
            return
        body = _Body(scope, receive, self._max_body)
        await body.receive(min(_UNCOUNTED_BYTES, self._max_body))
        if self._held >= self._capacity and not is_probe:
            await self._refuse(scope, send)
            return
        self._held += 1
        try:
            await body.receive(self._max_body)
            scope[ARRIVED_AT] = time.monotonic()
            if is_probe or await self._wait_for_slice(scope[ARRIVED_AT]):
                await self._app(scope, body.replay, send)
            else:
                await self._refuse(scope, send)
        finally:
            self._held -= 1

    async def _wait_for_slice(self, arrived_at: float) -> bool:
        """Cooperative scheduling: yield until an event-loop iteration has worked less than SLICE_SECONDS.

        Return False after `max_queue_time` seconds.
        """
        while self._slice_began and time.monotonic() - self._slice_began > SLICE_SECONDS:
            if time.monotonic() - arrived_at > self._max_queue_time:
                return False
            await asyncio.sleep(0)
        if self._slice_began is None:
            self._slice_began = time.monotonic()
            asyncio.get_running_loop().call_soon(self._end_slice)
        return True

    def _end_slice(self) -> None:
        self._slice_began = None

    async def _refuse(self, scope: Scope, send: Send) -> None:
        self._on_refusal(scope["path"])
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = request.request_id_or_new(given.decode("latin-1"))
        body = orjson.dumps(errors.problem_document(_OVERLOADED, request_id))
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"1"),
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": _OVERLOADED.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Body:
    """Body of a request, received in parts."""

    def __init__(self, scope: Scope, receive: Receive, max_body: int) -> None:
        self._receive = receive
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        self._more = int(declared) <= max_body
        self._parts: list[bytes] = []
        self._size = 0
        self._disconnect: Message | None = None

    async def receive(self, limit: int) -> None:
        """Receive parts until the body is complete or exceeds `limit` bytes."""
        while self._more and self._size <= limit:
            message = await self._receive()
            if message["type"] != "http.request":
                self._disconnect, self._more = message, False
                return
            self._parts.append(message["body"])
            self._size += len(message["body"])
            self._more = message["more_body"]

    async def replay(self) -> Message:
        """Return what was received as one message."""
        return self._disconnect or {
            "type": "http.request",
            "body": b"".join(self._parts),
            "more_body": False,
        }
