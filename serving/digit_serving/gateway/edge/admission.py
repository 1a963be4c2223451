"""Admission control: bounds the requests and bytes that a process holds, and their wait; 429 beyond."""

import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from digit_core.errors import OverloadedError
from digit_serving.gateway import errors
from digit_serving.gateway.bridge import (
    DEADLINE,
    TRUNCATED,
    Application,
    Message,
    Receive,
    Scope,
    Send,
)
from digit_serving.gateway.edge.http_limits import ABANDONED
from digit_serving.gateway.edge.memory import MemoryBudget
from digit_serving.gateway.edge.slices import Slices
from digit_serving.gateway.request import PROBE_ROUTES, Deadlines, request_id_or_new
from digit_serving.gateway.settings import Settings
from digit_serving.sockets import network

_OVERLOADED = errors.problem_kind(OverloadedError)
_UNCOUNTED_BYTES = 64 * 1024
"""Bytes of a body that arrive before its request counts; uvicorn buffers as many."""
_LENGTH_HEADERS = (b"content-length", b"transfer-encoding")


class Admission:
    """ASGI middleware that holds at most `queue_capacity` requests, and `body_memory` bytes of their bodies.

    Behind trusted proxies, it holds at most `address_connections` requests of the address that they name.
    A request that does not fit gets 429 with Retry-After, before its body is read if the declared length says
    so: a flood costs little. A request that waits beyond its latest start gets the same. Probes and
    metrics always pass. Requests wait for the event loop only, in order of arrival: a slow sender or a slow
    model delays no other request. A request counts once its body, or 64 KiB of it, has arrived: callers that
    send a few bytes and wait take no other's place. Bytes count as they arrive.

    A body is passed on as one message. It is truncated if it exceeds `max_body` bytes. A body of more than
    64 KiB is not received at all unless `takes_body` says of its request's scope that it will be used.
    """

    def __init__(
        self,
        app: Application,
        settings: Settings,
        on_refusal: Callable[[str], None],
        takes_body: Callable[[Scope], bool] = lambda _: True,
        slices: Slices | None = None,
    ) -> None:
        self._app = app
        self._capacity = settings.queue_capacity
        self._deadlines = Deadlines(settings)
        self._max_body = settings.max_body
        self._memory = MemoryBudget(settings.body_memory)
        self._proxies = settings.trusted_proxies
        self._address_limit = settings.address_connections
        self._on_refusal = on_refusal
        self._takes_body = takes_body
        self._held = 0
        self._by_address: Counter[str] = Counter()
        """Requests that the proxies' addresses hold."""
        self._slices = slices or Slices()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if self._proxies and self._address_limit and scope["path"] not in PROBE_ROUTES:
            return self._admit_by_address(scope, receive, send)
        return self._admit(scope, receive, send)

    async def _admit_by_address(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = self._forwarded_address(scope)
        if self._by_address[address] >= self._address_limit:
            await self._refuse(scope, send)
            return
        self._by_address[address] += 1
        try:
            await self._admit(scope, receive, send)
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_probe = scope["path"] in PROBE_ROUTES
        body = _Body(scope, receive, self._max_body)
        if not is_probe and (self._is_full() or self._memory.held + body.declared > self._memory.limit):
            await self._refuse(scope, send)
            return
        if body.is_long and not self._takes_body(scope):
            body.skip()
        try:
            is_held = await body.receive(min(_UNCOUNTED_BYTES, self._max_body), self._memory.hold)
            if body.is_abandoned:
                return
            if not is_held or (self._is_full() and not is_probe):
                await self._refuse(scope, send)
                return
            self._held += 1
            try:
                is_held = await body.receive(self._max_body, self._memory.hold)
                deadline = scope[DEADLINE] = self._deadlines.of_query(scope["query_string"], time.monotonic())
                scope[TRUNCATED] = body.is_unread
                has_turn = is_probe or (is_held and await self._slices.wait(deadline.latest_start))
                # An answer that nobody reads is not computed: the next request has its turn sooner.
                if ABANDONED in scope:
                    return
                if has_turn:
                    await self._app(scope, body.replay, send)
                else:
                    await self._refuse(scope, send)
            finally:
                self._held -= 1
        finally:
            self._memory.hold(-body.size)

    def _is_full(self) -> bool:
        return self._held >= self._capacity

    def _forwarded_address(self, scope: Scope) -> str:
        """Return the address that the outermost trusted proxy names, or the caller's own."""
        fields = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        names = b",".join(fields).split(b",")
        if len(names) >= self._proxies and (name := names[-self._proxies].strip()):
            return network(name.decode("latin-1"))
        return network(scope["client"][0] if scope["client"] else None)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        self._on_refusal(scope["path"])
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = request_id_or_new(given.decode("latin-1"))
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
        headers = {name: value for name, value in scope["headers"] if name in _LENGTH_HEADERS}
        self.declared = int(headers.get(b"content-length", 0))
        self.is_long = self.declared > _UNCOUNTED_BYTES or b"transfer-encoding" in headers
        self.size = 0
        """Bytes that have arrived."""
        self.is_unread = True
        """True if a part has not been received."""
        self._receive = receive
        self._parts: list[bytes] = []
        self._disconnect: Message | None = None
        self._is_skipped = False
        if self.declared > max_body:
            self.skip()

    @property
    def is_abandoned(self) -> bool:
        """True if the caller is gone."""
        return self._disconnect is not None

    def skip(self) -> None:
        """Receive nothing."""
        self.declared, self._is_skipped = 0, True

    async def receive(self, limit: int, hold: Callable[[int], bool]) -> bool:
        """Receive parts until the body is complete or exceeds `limit` bytes.

        `hold` reserves memory for a part. Return False once it does not.
        """
        while self.is_unread and not self._is_skipped and self.size <= limit:
            message = await self._receive()
            if message["type"] != "http.request":
                self._disconnect, self.is_unread = message, False
                return True
            part = message["body"]
            if not hold(len(part)):
                return False
            self._parts.append(part)
            self.size += len(part)
            self.is_unread = message["more_body"]
        return True

    async def replay(self) -> Message:
        """Return what was received as one message."""
        return self._disconnect or {
            "type": "http.request",
            "body": b"".join(self._parts),
            "more_body": False,
        }
