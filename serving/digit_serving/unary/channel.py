"""The servers behind one target: which gets a call, which the next try, which are away."""

import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc

from digit_serving import greenlets
from digit_serving.unary import frames, names
from digit_serving.unary.answers import CallError
from digit_serving.unary.connection import Address, Connection, Tls

# A call may be made twice, so what a server drops that dies goes to another one at once. What an overloaded
# one refuses does not: it would be too much for the next one as well.
_WORTH_ANOTHER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
_PAUSES = (0.01, 0.04)

# A failure takes one token, a success gives a tenth back, and with half of them gone nothing is sent again:
# an outage of all is not made worse. Waiting for its end is the callers' part.
_TOKENS = 100.0
_BACK = 0.1

_CONNECT_SECONDS = 1.0
_SHORTEST, _LONGEST = 0.1, 0.25  # seconds between two tries to reach a server that is away


class Channel:
    """What grpc.Channel is for unary calls, for the greenlets of the event loop in which it is constructed.

    Every address of the target gets its share of the calls; one that can't be reached gets none until it can
    again. The target is looked up anew when a connection has ended. With `tls` the calls are encrypted, and
    the servers have to prove that they are the target. Raises ValueError where it is no target.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._authority = names.authority(target)
        self._scheme = b"https" if tls else b"http"
        self._tls = Tls(tls, names.host(self._authority)) if tls else None
        self._resolve = names.resolver(target)
        self._servers: dict[Address, _Server] = {}
        self._turn = 0
        self._tokens = _TOKENS
        self._looked_up = greenlets.Event()
        self._news = greenlets.Event()
        self._news.set()
        self._is_closed = False
        greenlets.start(self._tend)

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
    ) -> Callable[..., Any]:
        """A function that calls the method, with a `timeout` in seconds and `metadata`; raises CallError."""
        start = frames.literals(
            [
                (b":method", b"POST"),
                (b":scheme", self._scheme),
                (b":path", method.encode()),
                (b":authority", self._authority.encode()),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
            ]
        )

        def call(request: Any, timeout: float, metadata: Sequence[tuple[str, str]] = ()) -> Any:
            further = frames.literals([(name.encode(), value.encode()) for name, value in metadata])
            until = time.monotonic() + timeout
            return response_deserializer(self._call(start + further, request_serializer(request), until))

        return call

    def close(self) -> None:
        """Close every connection, those that carry a call when it has ended."""
        self._is_closed = True
        self._news.set()
        for server in self._servers.values():
            server.close()

    def _call(self, headers: bytes, message: bytes, until: float) -> bytes:
        for pause in (*_PAUSES, None):
            try:
                answer = self._next(until).call(headers, message, until)
            except CallError as error:
                if error.code() not in _WORTH_ANOTHER:
                    raise
                self._tokens = max(0.0, self._tokens - 1)
                if not pause or self._tokens <= _TOKENS / 2 or time.monotonic() + pause > until:
                    raise
                greenlets.sleep(pause)
            else:
                self._tokens = min(_TOKENS, self._tokens + _BACK)
                return answer
        raise AssertionError("the last try returns or raises")

    def _next(self, until: float) -> "_Server":
        if not self._looked_up.is_set() and not self._looked_up.wait(until - time.monotonic()):
            raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, f"{self._target} was not looked up in time")
        servers = self._servers.values()
        here = [server for server in servers if not server.is_away]
        # Where none is left, one that refused is asked again: it says so at once, and may be back by now.
        here = here or [server for server in servers if server.has_refused]
        if not here:
            why = "; ".join(server.trouble for server in servers)
            raise CallError(grpc.StatusCode.UNAVAILABLE, f"no server of {self._target} can be reached: {why}")
        self._turn += 1
        return here[self._turn % len(here)]

    def _tend(self) -> None:
        """Whenever a connection has ended, see which servers there are and whether they are back."""
        pause = _SHORTEST
        while not self._is_closed:
            self._news.wait()
            self._news.clear()
            found, away = (
                self._look_up(),
                [server for server in self._servers.values() if not server.revive()],
            )
            self._looked_up.set()
            if found and not away:
                pause = _SHORTEST
            else:
                pause = min(_LONGEST, 2 * pause)
                self._news.set()
            greenlets.sleep(pause)

    def _look_up(self) -> bool:
        try:
            addresses = greenlets.in_thread(None, self._resolve)
        except OSError:
            return False
        before = self._servers
        self._servers = {
            address: before.get(address) or _Server(address, self._tls, self._news.set)
            for address in addresses
        }
        for address in before.keys() - self._servers.keys():
            before[address].close()
        return bool(addresses)


class _Server:
    """One address of a target, and the connections to it that carry no call now.

    `is_away` while it can't be reached, for the reason `trouble`; `has_refused` where nobody listens there;
    `on_loss` is called whenever a connection has ended.
    """

    def __init__(self, address: Address, tls: Tls | None, on_loss: Callable[[], None]) -> None:
        self._address = address
        self._tls = tls
        self._on_loss = on_loss
        self._idle: deque[Connection] = deque()
        self._is_closed = False
        self.is_away = self.has_refused = False
        self.trouble = ""

    def call(self, headers: bytes, message: bytes, until: float) -> bytes:
        """The answer to a message. Raises CallError."""
        connection = self._take(until)
        try:
            left = frames.timeout(until - time.monotonic())
            return connection.call(headers + frames.literals([(b"grpc-timeout", left)]), message, until)
        finally:
            self._put_back(connection)

    def revive(self) -> bool:
        """Whether it can be reached, which is tried where it is away."""
        if self.is_away:
            with suppress(CallError):
                self._put_back(self._connect(_CONNECT_SECONDS))
        return not self.is_away

    def close(self) -> None:
        """Close its connections, those that carry a call when it has ended."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self, until: float) -> Connection:
        while self._idle:
            if (connection := self._idle.pop()).has_lasted():
                return connection
            self._on_loss()
        return self._connect(max(0.001, min(_CONNECT_SECONDS, until - time.monotonic())))

    def _connect(self, timeout: float) -> Connection:
        try:
            connection = Connection(self._address, timeout, self._tls)
        except CallError as error:
            self.is_away, self.trouble = True, error.details()
            self.has_refused = isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError))
            self._on_loss()
            raise
        self.is_away = self.has_refused = False
        return connection

    def _put_back(self, connection: Connection) -> None:
        if connection.is_open and not self._is_closed:
            self._idle.append(connection)
            return
        connection.close()
        self.is_away |= connection.is_silent
        self._on_loss()
