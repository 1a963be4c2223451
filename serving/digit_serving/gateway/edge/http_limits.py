"""HTTP limits that uvicorn lacks: size of heads, pipelining, time to read and write, connections."""

import re
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from http import HTTPStatus
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from digit_serving.gateway.edge.handshakes import AddressConnections, Handshakes
from digit_serving.gateway.edge.memory import MemoryBudget
from digit_serving.sockets import network

ABANDONED = "digits.abandoned"
"""Key of a request's scope: true once the connection was reset, by the caller or by the server."""
_MAX_HEAD = 16 * 1024
"""Maximum bytes of request line and headers together, and of the trailers."""
_MAX_FIELDS = 100
"""Maximum number of headers of a request."""
_MAX_WAITING = 64 * 1024
"""Maximum bytes of further requests that wait for the answer to a request (pipelining)."""
_FIELD_BYTES = 256
"""Memory of a parsed header beside its text."""
_UNCOUNTED_BYTES = 8 * 1024
"""Bytes of a connection outside the memory budget: an ordinary head, such as a probe's, always passes."""
_BLANK_LINE = b"\r\n\r\n"
"""End of a head, and of a chunked body."""
_MAX_BLANK_LINES = 10_000
"""Maximum blank lines in a chunked body: each may be its end, and so costs a call of the parser."""
_RESET = pack("ii", 1, 0)
"""Value of SO_LINGER: on, for no time."""
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class _Writer:
    """Transport that sends what is written in one iteration of the event loop by one system call.

    uvicorn writes head and body of an answer apart. They are not joined: callers share the body of a page.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        # Closed meanwhile, uvloop's transport raises RuntimeError.
        if self._parts and not self._transport.is_closing():
            self._transport.writelines(self._parts)
        self._parts = []


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol; overrides only callbacks of asyncio, httptools and uvicorn.

    Refuses a request whose head is too long (414, 431) and one that is incomplete or of another protocol
    (400). Closes a connection on which a request takes longer than `arrival_seconds` to arrive, or pauses for
    longer than `pause_seconds` before its last byte, or on which an answer is not read for so long.

    Pipelining: a further request waits unparsed until the answer to the one before it has been sent. Heads,
    further requests and unsent answers count in `memory`; a connection for which none is left is closed.
    """

    arrival_seconds = 30.0
    """Maximum seconds from a request's first byte, or from a new connection, to the request's last byte."""
    pause_seconds = 10.0
    """Maximum seconds between two parts of a request or of an answer: a stalled caller frees its memory."""
    drain_seconds = 3.0
    """Seconds at shutdown in which an idle connection still gets an answer, with `Connection: close`."""
    memory = MemoryBudget(32 * 1024 * 1024)
    """Budget of a process, beside that of bodies."""
    address_connections = 0
    """Maximum connections of an address in a handshake or waiting for a request; one more closes the oldest.
    0: no limit."""
    handshakes: Handshakes | None = None
    """TLS handshakes, with which connections begin."""
    _waiting: ClassVar = AddressConnections()
    """Connections in a handshake or waiting for a request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unparsed = bytearray()
        self._in_head, self._head_memory = True, 0
        self._blank_lines = self._trailer_size = 0
        self._body_left: int | None = None
        """Bytes of the body that are still to arrive; None in a chunked body and in a head."""
        self._arrival_timer: TimerHandle | None = None
        self._arrival_began = self._part_arrived = 0.0
        self._write_timer: TimerHandle | None = None
        self._unsent = self._counted = 0
        self._is_draining = False
        self._address = ""

    def connection_made(self, transport: Any) -> None:
        # A caller that is gone has no address.
        host, *_ = transport.get_extra_info("peername") or [None]
        if self.address_connections:
            self._address = network(host)
        if self.handshakes and not transport.get_extra_info("sslcontext"):
            # Called again after the handshake.
            self._wait(self.handshakes.begin(transport, self, network(host)).cancel)
            return
        self._writer = _Writer(transport, self.loop)
        super().connection_made(self._writer)  # type: ignore[arg-type]
        # Report bytes that the kernel does not take. A high-water mark of 0 would always be reached with TLS.
        transport.set_write_buffer_limits(1, 0)
        self._start_arrival_timer()
        self._wait(transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_arrival_timer()
        self._stop_write_timer()
        self._unparsed.clear()
        self._head_memory = self._unsent = 0
        self._count()
        self._end_wait()
        if self.cycle:
            self.cycle.scope[ABANDONED] = True  # type: ignore[literal-required]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        self._part_arrived = self.loop.time()
        self._parse()

    def eof_received(self) -> bool:  # type: ignore[override]
        if not self._in_head or (self._unparsed and self._may_parse()):
            self._refuse(400)
        else:
            super().shutdown()
        # Keep the transport open for the answer. TLS closes it anyway, and asyncio warns of the attempt.
        return not self.transport.get_extra_info("sslcontext")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            if name.lower() == b"content-length":
                self._body_left = int(value)
            super().on_header(name, value)
            return
        # Discard trailers: the application has the headers already.
        self._trailer_size += len(name) + len(value) + len(": \r\n")
        if self._trailer_size > _MAX_HEAD:
            raise ValueError("trailers too long")

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in ("1.0", "1.1") or self.parser.get_method() == b"CONNECT":
            raise ValueError("unsupported protocol")
        self._in_head = False
        self._blank_lines = self._trailer_size = 0
        super().on_headers_complete()
        if self._is_draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._in_head, self._body_left = True, None
        self._stop_arrival_timer()
        if not self.cycle.response_complete:
            self._end_wait()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._head_memory = 0
        self._wait(self.transport.abort)
        super().on_response_complete()
        if self._unparsed:
            # Learn first whether the caller reads.
            self._writer.flush()
            self._parse()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()
        self._unsent = 0
        self._parse()

    def shutdown(self) -> None:
        """Close the connection after its next answer, or after `drain_seconds` without a request."""
        self._is_draining = True
        if self.cycle and not self.cycle.response_complete:
            super().shutdown()
        else:
            self.loop.call_later(self.drain_seconds, self._end_draining)

    def _end_draining(self) -> None:
        if self._in_head and not self._unparsed:
            super().shutdown()

    def _wait(self, close: Callable[[], object]) -> None:
        """Count as a connection that waits, until `_end_wait`."""
        if self._address:
            self._waiting.add(self._address, self, close, self.address_connections)

    def _end_wait(self) -> None:
        self._waiting.discard(self._address, self)

    def _may_parse(self) -> bool:
        is_answered = self.cycle is None or self.cycle.response_complete
        return not self._in_head or (is_answered and not self.flow.write_paused)

    def _parse(self) -> None:
        """Parse what has arrived, up to the end of a request that has not been answered."""
        while self._unparsed and self._may_parse() and not self.transport.is_closing():
            self._start_arrival_timer()
            part = self._take_head() if self._in_head else self._take_body()
            if not part:
                break
            super().data_received(part)
        if len(self._unparsed) > _MAX_WAITING and not self._may_parse():
            # Nobody waits for the answer any more: the application learns it before it begins.
            self.cycle.disconnected = True
            self.transport.abort()
        self._count()

    def _take_head(self) -> bytes:
        """Return the next request's head, or b"" while it is incomplete or if it is refused."""
        if self._unparsed[0] in b"\r\n":
            self._unparsed = self._unparsed.lstrip(b"\r\n")
        end = self._unparsed.find(_BLANK_LINE, 0, _MAX_HEAD)
        head = bytes(self._unparsed[: _MAX_HEAD if end < 0 else end])
        if len(head) == _MAX_HEAD and b"\n" not in head:
            self._refuse(414)
        elif len(head) == _MAX_HEAD or (fields := head.count(b"\n")) > _MAX_FIELDS:
            self._refuse(431)
        elif head and not head[:1].isalpha():
            # A caller that speaks TLS learns at once that this port does not.
            self._refuse(400)
        elif end >= 0:
            del self._unparsed[: end + len(_BLANK_LINE)]
            self._head_memory = len(head) + fields * _FIELD_BYTES
            # Remove Upgrade headers: after one, the parser stops parsing HTTP. Java's HttpClient offers h2c
            # by default; a server may ignore the offer (RFC 9110, 7.8).
            return _UPGRADE.sub(b"", head) + _BLANK_LINE
        return b""

    def _take_body(self) -> bytes:
        """Return the next part of the body, which ends with the body at the latest; b"" as `_take_head`."""
        if self._body_left is not None:
            size = self._body_left
        elif (end := self._unparsed.find(_BLANK_LINE)) >= 0:
            size = end + len(_BLANK_LINE)
            self._blank_lines += 1
            if self._blank_lines > _MAX_BLANK_LINES:
                self._refuse(400)
                return b""
        else:
            size = max(0, len(self._unparsed) - len(_BLANK_LINE) + 1)
        part = bytes(self._unparsed[:size])
        del self._unparsed[:size]
        if self._body_left is not None:
            self._body_left -= len(part)
        return part

    def _count(self) -> None:
        """Count what the connection holds in the memory budget. Close the connection if that is exhausted."""
        held = len(self._unparsed) + self._head_memory + self._unsent
        counted = max(0, held - _UNCOUNTED_BYTES)
        if counted == self._counted:
            return
        if self.memory.hold(counted - self._counted):
            self._counted = counted
        else:
            self.transport.abort()

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

    def _watch_writing(self) -> None:
        """Count the unsent bytes, and close the connection if they do not get fewer in `pause_seconds`."""
        unsent = self.transport.get_write_buffer_size()
        if self._write_timer and unsent >= self._unsent:
            # Reset: the kernel would keep what it holds, for a caller who reads nothing.
            self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            self.transport.abort()
            return
        self._unsent = unsent
        self._write_timer = self.loop.call_later(self.pause_seconds, self._watch_writing)
        self._count()

    def _stop_write_timer(self) -> None:
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None

    def _refuse(self, status: int) -> None:
        phrase = HTTPStatus(status).phrase.encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, phrase)
        )
        self.transport.close()
