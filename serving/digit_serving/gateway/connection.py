"""A client's connection to a gateway that has much to do."""

import time
from typing import Any

import orjson

from digit_client.errors import OverloadedError
from digit_serving.gateway import errors, hooks
from digit_serving.gateway.asgi import WAITED
from digit_serving.gateway.backlog import Backlog
from digit_serving.gateway.http1 import Field, Http1
from digit_serving.gateway.metrics import Metrics

_REST = 1.0  # seconds, as Retry-After asks for
_REST_OF_PROXY = 0.25
_PROXIES_SAY = {b"forwarded", b"via", b"x-forwarded-for"}
_STATUS, _CODE, _DETAIL = errors.told(OverloadedError)
_QUIET = tuple(path.encode() for path in hooks.QUIET)


class Connection(Http1):
    """HTTP/1.1, where a request is not read before it is its turn, or refused before it costs much.

    A service that refuses as slowly as it answers does nothing else under a flood. Health checks always get
    through. Who was refused is not listened to for a second, or a proxy, by whose connection others come as
    well, for a quarter: else those who ask again at once take the time that answers need.
    """

    __slots__ = ("_backlog", "_came", "_has_ended", "_is_late", "_metrics", "_unread")

    def __init__(self, backlog: Backlog, metrics: Metrics, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._backlog = backlog
        self._metrics = metrics
        self._unread: bytes | None = None
        """What came while it is to wait."""
        self._came: float | None = None
        """When that came, while it is read."""
        self._is_late = False
        """Whether what is read has waited for too long."""
        self._has_ended = False
        """Whether no more comes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._unread = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._unread is not None:
            self._unread += data
            self.flow.pause_reading()
        elif self._backlog.is_long and self._may_wait(data):
            self._unread, self._came = data, time.perf_counter()
            self.be_idle()
            self._backlog.wait(self._go_on, self._give_up)
        else:
            super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        self._has_ended = True
        return self._unread is not None or super().eof_received()

    def shutdown(self) -> None:
        self._go_on()
        super().shutdown()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._came:
            self.scope[WAITED] = time.perf_counter() - self._came  # type: ignore[literal-required]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        is_too_much = self._is_late or (self._backlog.is_full and not self._came)
        if is_too_much and cycle.scope["path"] not in hooks.QUIET:
            # Not at once, for whole chains of requests may have come together.
            self.loop.call_soon(self._turn_away, cycle)
        else:
            self._backlog.take()
            super()._start_asgi_task(cycle, self._answer)

    async def _answer(self, *request: Any) -> None:
        try:
            await self.app(*request)
        finally:
            self._backlog.leave()

    def _turn_away(self, cycle: Any) -> None:
        """Answer as an overloaded model server is, without a task."""
        if self.transport.is_closing():
            return
        self._metrics.count_overload()
        cycle.response_started = cycle.response_complete = True
        fields, body = _refusal(headers := cycle.scope["headers"])
        if not cycle.keep_alive:
            fields.append((b"connection", b"close"))
        self.say(_STATUS, fields, body if cycle.scope["method"] != "HEAD" else b"")
        if cycle.keep_alive:
            self.on_response_complete()
            self.flow.pause_reading()
            self.loop.call_later(_rest_after(headers), self._listen)
        else:
            self.transport.close()

    def _may_wait(self, data: bytes) -> bool:
        """Whether it is the beginning of a request before which others may go."""
        if self.is_engaged() or self._backlog.is_full:
            return False
        return not data.startswith(_QUIET, data.find(b" ") + 1)

    def _give_up(self) -> None:
        """Read what waits, to refuse it."""
        self._is_late = True
        self._go_on()
        self._is_late = False

    def _go_on(self) -> bool:
        """Read what waits, and tell whether there is a request now that is to be answered."""
        if self._unread is None or self.transport.is_closing():
            return False
        data, self._unread = self._unread, None
        self.flow.resume_reading()
        super().data_received(data)
        self._came = None
        if self._has_ended and not super().eof_received():
            self.transport.close()
        return self.is_engaged() and not self.transport.is_closing()

    def _listen(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()


def _rest_after(headers: list[Field]) -> float:
    return _REST_OF_PROXY if any(name in _PROXIES_SAY for name, _ in headers) else _REST


def _refusal(headers: list[Field]) -> tuple[list[Field], bytes]:
    """The headers and the body with which a request of such headers is refused."""
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    request_id = hooks.request_id(given.decode("latin-1"))
    body = orjson.dumps(errors.document(_STATUS, _CODE, _DETAIL, request_id))
    fields = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"1"),
        (b"x-request-id", request_id.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    return fields, body
