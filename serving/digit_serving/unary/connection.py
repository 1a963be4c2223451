"""A client's connection to a gRPC server, which carries one unary call at a time."""

import asyncio
import ssl
import time
from dataclasses import dataclass

import grpc

from digit_serving import greenlets
from digit_serving.unary import frames
from digit_serving.unary.answers import Answer, CallError
from digit_serving.unary.frames import Frame, ProtocolError, Splitter

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How a connection is encrypted, and the name that the server has to prove."""

    context: ssl.SSLContext
    host: str


# A server that hangs closes no connection. It is asked for a sign of life when a call has waited for a
# second, and has two to give it, so that of a deadline of five there are two left for another server.
_PATIENCE = 1.0
_LAST_PATIENCE = 2.0

_GREETING = (
    frames.PREFACE
    # Without a table the server's equal headers are equal bytes, and are decoded once.
    + frames.settings(header_table_size=0, enable_push=0, initial_window_size=frames.LARGEST_WINDOW)
    + frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)
)
_TOP_UP = 2**24


class Connection(asyncio.Protocol):
    """Opened when constructed, in `timeout` seconds at the most; raises CallError where there is no server.

    For one greenlet at a time, which waits for the answer while the event loop goes on. `is_open` tells
    whether it can carry another call, `is_silent` whether the server gave no sign of life.
    """

    def __init__(self, address: Address, timeout: float, tls: Tls | None = None) -> None:
        self._name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self._splitter = Splitter()
        self._window = self._initial_window = frames.DEFAULT_WINDOW
        self._stream = -1
        self._received = 0
        self._greeted = False
        self._arrived: list[bytes] = []
        self._news = greenlets.Event()
        self._trouble = ""
        self.is_open = True
        self.is_silent = False
        until = time.monotonic() + timeout
        try:
            self._transport = greenlets.wait_for(self._open(address, tls), timeout)
        except OSError as error:
            raise self._unavailable(f"can't be reached: {error}") from error
        self._greet(until)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._arrived.append(data)
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._trouble = f"the connection broke: {exc}" if exc else "closed the connection"
        self.is_open = False
        self._news.set()

    def call(self, headers: bytes, message: bytes, until: float) -> bytes:
        """The answer to a message, `until` a time of the monotonic clock; `headers` are a header block.

        Raises CallError.
        """
        self._stream += 2
        answer, rest = Answer(self._stream, self._initial_window), frames.message(message)
        sent = frames.header_frames(self._stream, headers)
        try:
            while not answer.ended:
                data, rest = self._sendable(rest, answer)
                self._send(sent + data)
                sent = b""
                self._handle(self._receive(until), answer)
            return answer.message()
        except ProtocolError as error:
            self.close()
            raise CallError(grpc.StatusCode.INTERNAL, f"{self._name}: {error}") from error
        except CallError:
            # A server that keeps the deadline as well may be the first to give up.
            if time.monotonic() >= until:
                raise self._too_late() from None
            raise
        finally:
            if not answer.ended or self._stream >= frames.LARGEST_WINDOW - 2:
                self.close()

    def has_lasted(self) -> bool:
        """Whether it is still open. Reads what the server said since the last call."""
        try:
            while self.is_open and self._arrived:
                self._handle(self._take(), Answer(0, 0))
        except (CallError, ProtocolError):
            self.is_open = False
        if not self.is_open:
            self.close()
        return self.is_open

    def close(self) -> None:
        """Close it; a call still out fails."""
        self.is_open = False
        # What it has not taken yet it is not to get.
        self._transport.abort()

    async def _open(self, address: Address, tls: Tls | None) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        context, host = (tls.context, tls.host) if tls else (None, None)
        transport: asyncio.Transport
        if isinstance(address, str):
            transport, _ = await loop.create_unix_connection(
                lambda: self, address, ssl=context, server_hostname=host
            )
        else:
            transport, _ = await loop.create_connection(
                lambda: self, *address, ssl=context, server_hostname=host
            )
        return transport

    def _greet(self, until: float) -> None:
        # What only accepts connections, as the kernel does for a server that hangs, never sends settings.
        try:
            self._send(_GREETING)
            while not self._greeted:
                self._handle(self._receive(until), Answer(0, 0))
        except (CallError, ProtocolError) as error:
            self.close()
            raise self._unavailable(f"does not greet: {error}") from error

    def _sendable(self, rest: bytes, answer: Answer) -> tuple[bytes, bytes]:
        """As much of the message as the server takes now, in frames, and the rest."""
        if not rest:
            return b"", rest
        sent = []
        while rest and (size := min(self._window, answer.window, frames.DEFAULT_FRAME_SIZE)) > 0:
            part, rest = rest[:size], rest[size:]
            flags = 0 if rest else frames.END_STREAM
            sent.append(frames.frame(frames.DATA, flags, answer.stream, part))
            self._window -= len(part)
            answer.window -= len(part)
        return b"".join(sent), rest

    def _send(self, data: bytes) -> None:
        if self._trouble:
            raise self._unavailable(self._trouble)
        self._transport.write(data)

    def _receive(self, until: float) -> list[Frame]:
        asked, wait = False, _PATIENCE
        while not self._arrived:
            if self._trouble:
                raise self._unavailable(self._trouble)
            left = until - time.monotonic()
            if left <= 0:
                raise self._too_late()
            self._news.clear()
            if self._news.wait(min(wait, left)):
                continue
            if left > wait and asked:
                self.is_silent = True
                raise self._unavailable("gives no sign of life")
            if left > wait:
                self._send(frames.frame(frames.PING, 0, 0, bytes(8)))
                asked, wait = True, _LAST_PATIENCE
        return self._take()

    def _take(self) -> list[Frame]:
        arrived, self._arrived = self._arrived, []
        return self._splitter.feed(b"".join(arrived))

    def _handle(self, got: list[Frame], answer: Answer) -> None:
        for kind, flags, stream, payload in got:
            if kind == frames.SETTINGS and not flags & frames.ACK:
                self._apply(frames.read_settings(payload), answer)
            elif kind == frames.PING and not flags & frames.ACK:
                self._send(frames.frame(frames.PING, frames.ACK, 0, payload))
            elif kind == frames.GOAWAY:
                self.is_open = False
                if frames.number(payload) < answer.stream:
                    raise self._unavailable("is going away")
            elif kind == frames.WINDOW_UPDATE and not stream:
                self._window += frames.number(payload)
            # After its whole answer a server may reset the stream, which then says nothing about the call.
            elif stream == answer.stream and not answer.ended:
                answer.take(kind, flags, payload)
                self._count(len(payload) if kind == frames.DATA else 0)

    def _apply(self, settings: dict[int, int], answer: Answer) -> None:
        self._greeted = True
        window = settings.get(frames.INITIAL_WINDOW_SIZE, self._initial_window)
        answer.window += window - self._initial_window
        self._initial_window = window
        self._send(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _count(self, size: int) -> None:
        self._received += size
        if self._received > _TOP_UP:
            self._send(frames.window_update(0, self._received))
            self._received = 0

    def _too_late(self) -> CallError:
        return CallError(grpc.StatusCode.DEADLINE_EXCEEDED, f"{self._name} did not answer in time")

    def _unavailable(self, what: str) -> CallError:
        return CallError(grpc.StatusCode.UNAVAILABLE, f"{self._name} {what}")
