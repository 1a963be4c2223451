"""HTTP limits that uvicorn lacks: head size, arrival time, and ignored protocol upgrades."""

import re
from asyncio import AbstractEventLoop, TimerHandle, Transport
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEAD = 64 * 1024
"""Maximum bytes of request line and headers together, and of the trailers."""
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class _JoinedWrites:
    """Transport that sends what is written in one iteration of the event loop by one system call.

    uvicorn writes head and body of an answer apart.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol; overrides only callbacks that asyncio and httptools document.

    Refuses a request whose head is too long (414, 431) and one that is incomplete or of another protocol
    (400). Closes a connection on which a request takes longer than `arrival_seconds` to arrive, or pauses for
    longer than `pause_seconds` before its last byte.
    """

    arrival_seconds = 30.0
    """Maximum seconds from a request's first byte, or from a new connection, to the request's last byte."""
    pause_seconds = 10.0
    """Maximum seconds between two parts of a request: a stalled sender frees its place in admission."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head, self._head_size, self._has_request_line = True, 0, False
        self._trailer_size = 0
        self._arrival_timer: TimerHandle | None = None
        self._arrival_began = self._part_arrived = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._start_arrival_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_arrival_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._part_arrived = self.loop.time()
        self._start_arrival_timer()
        if self._in_head:
            end = data.find(b"\r\n\r\n")
            head = data if end < 0 else data[:end]
            self._has_request_line |= b"\n" in data[: max(0, _MAX_HEAD - self._head_size)]
            self._head_size += len(head)
            if self._head_size > _MAX_HEAD:
                self._refuse(431 if self._has_request_line else 414)
                return
            # Remove Upgrade headers: after one, the parser stops parsing HTTP. Java's HttpClient offers h2c
            # by default; a server may ignore the offer (RFC 9110, 7.8).
            data = _UPGRADE.sub(b"", head) + data[len(head) :]
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        if self._arrival_timer and self._head_size:
            self._refuse(400)
        else:
            self.shutdown()
        # Keep the transport open for the answer. TLS closes it anyway, and asyncio warns of the attempt.
        return not self.transport.get_extra_info("sslcontext")

    def on_message_begin(self) -> None:
        self._trailer_size = 0
        self._start_arrival_timer()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            self._trailer_size += len(name) + len(value) + len(": \r\n")
            if self._trailer_size > _MAX_HEAD:
                raise ValueError("trailers too long")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in ("1.0", "1.1") or self.parser.get_method() == b"CONNECT":
            raise ValueError("unsupported protocol")
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._head_size, self._has_request_line = True, 0, False
        self._stop_arrival_timer()
        super().on_message_complete()

    def _start_arrival_timer(self) -> None:
        if self._arrival_timer is None:
            self._arrival_began = self._part_arrived = self.loop.time()
            self._schedule_arrival_check()

    def _schedule_arrival_check(self) -> None:
        end = min(self._arrival_began + self.arrival_seconds, self._part_arrived + self.pause_seconds)
        if end > self.loop.time():
            self._arrival_timer = self.loop.call_at(end, self._schedule_arrival_check)
        else:
            self.transport.close()

    def _stop_arrival_timer(self) -> None:
        if self._arrival_timer:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _refuse(self, status: int) -> None:
        phrase = HTTPStatus(status).phrase.encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, phrase)
        )
        self.transport.close()
