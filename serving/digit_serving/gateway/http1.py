"""A client's connection: uvicorn's, with bounds on how long a request may be, and may take to arrive."""

import http
import math
from asyncio import TimerHandle, Transport
from typing import Any, NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LONGEST = 64 * 1024  # bytes of a path, or of all headers
_SECONDS = 30.0
_GO_ON = b"HTTP/1.1 100 "  # with the body, for which the answer waits
_OF_UPGRADES = {b"connection", b"upgrade", b"http2-settings"}

Field = tuple[bytes, bytes]
"""A header's name and value."""


class Http1(HttpToolsProtocol):
    """HTTP/1.1 as a server has it. The event loop and the parser call its methods.

    A request that is none, or is cut off, gets 400 and the end of the connection, one whose path or headers
    are too long 414 or 431, one that takes too long to arrive the end alone.
    """

    # With more than thirty others an object has a table of its own for them, and the cache no room for it.
    __slots__ = ("_begun", "_due", "_fields", "_head", "_in_head", "_refusal", "_status", "_timer")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head, self._head = True, 0
        """Whether a request's headers have not ended, and how many bytes of them came."""
        self._fields = 0
        self._begun = False
        self._status = 400
        self._refusal: int | None = None
        """What is to be answered once those before it have their answers."""
        self._due = math.inf
        """When it ends unless something happens, by the loop's clock."""
        self._timer: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._due = self.loop.time() + _SECONDS
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
            return
        except HttpParserError:
            self._refuse(self._status)
            return
        if self._in_head and self._head > _LONGEST:
            self._refuse(431)

    def eof_received(self) -> bool:  # type: ignore[override]
        if self._begun:
            self._refuse(400)
        elif self._owes():
            self.cycle.keep_alive = False
        # Who sends no more may still want an answer.
        return self._owes()

    def is_engaged(self) -> bool:
        """Whether there is a request that has not all come yet, or an answer to come."""
        return self._begun or self._owes()

    def be_idle(self) -> None:
        """Wait for a request as long as one may between two."""
        self._due = self.loop.time() + self.timeout_keep_alive

    def say(self, status: int, fields: list[Field], body: bytes = b"") -> None:
        """Answer without the application."""
        head = [b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode())]
        head += [b"%s: %s" % field for field in (*self.server_state.default_headers, *fields)]
        self.transport.write(b"\r\n".join([*head, b"", body]))

    def on_message_begin(self) -> None:
        self._begun, self._fields = True, 0
        self._due = min(self._due, self.loop.time() + _SECONDS)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > _LONGEST:
            self._overlong(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Those that come after a body as well.
        super().on_header(name, value)
        self._fields += len(name) + len(value) + len(": \r\n")
        if self._fields > _LONGEST:
            self._overlong(431)

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in ("1.0", "1.1") or self.parser.get_method() == b"CONNECT":
            raise ValueError("another protocol")
        if self.parser.should_upgrade():
            return
        self._in_head = False
        super().on_headers_complete()
        if self.cycle.scope["method"] != "HEAD":
            self.cycle.transport = _Outlet(self.transport)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_head, self._head, self._begun = True, 0, False
        super().on_message_complete()
        if self._owes():
            self._due = math.inf
        else:
            self.be_idle()

    def on_response_complete(self) -> None:
        # uvicorn's own starts a timer for each.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._begun:
            self.be_idle()
            # What the next request on another connection is made of is then still in the processor's cache.
            self.cycle = self.scope = self.headers = None  # type: ignore[assignment]
        if self._refusal:
            self._refuse(self._refusal)

    def _overlong(self, status: int) -> NoReturn:
        self._status = status
        raise ValueError("longer than it may be")

    def _decline(self, rest: bytes) -> None:
        """Read the request as one that asks for no other protocol, as those of Java's client do by default.

        The parser takes what follows such a request's headers for the other protocol's.
        """
        fields = [(name, value) for name, value in self.headers if name not in _OF_UPGRADES]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        method, self._head = self.parser.get_method(), 0
        self.parser = HttpRequestParser(self)
        self.data_received(b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, self.url, head, rest))

    def _owes(self) -> bool:
        """Whether there are answers to come to requests that are here as a whole."""
        last = self.cycle
        return bool(self.pipeline) or bool(last and not last.response_complete and not last.more_body)

    def _refuse(self, status: int) -> None:
        if self._owes():
            self._refusal = status
            return
        self.say(status, [(b"connection", b"close"), (b"content-length", b"0")])
        self.transport.close()

    def _look(self) -> None:
        """Look at the clock now and then: a timer for each request would take longer."""
        left = self._due - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(min(left, _SECONDS), self._look)
        else:
            self.transport.close()


class _Outlet(Transport):
    """What a request's answer is written to: its head waits for the body, so that both are sent at once."""

    def __init__(self, transport: Any) -> None:
        super().__init__()
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: Any) -> None:
        if self._head is not None:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(_GO_ON):
            self._transport.write(data)
        else:
            self._head = data

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())

    def close(self) -> None:
        self._transport.close()
