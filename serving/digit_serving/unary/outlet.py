"""What a connection sends: frames, and answers as fast as the client takes them (RFC 9113, 5.2)."""

import select
import socket
from dataclasses import dataclass
from threading import Lock

from digit_serving.unary import frames
from digit_serving.unary.calls import Answer
from digit_serving.unary.frames import (
    DATA,
    DEFAULT_FRAME_SIZE,
    END_HEADERS,
    HEADERS,
    LARGEST_WINDOW,
    ProtocolError,
)
from digit_serving.unary.tls import TlsSocket

_TURN = 64  # frames of an answer after which other threads may send theirs


@dataclass(slots=True)
class _Stream:
    """`window` is how much of its answer the client takes, `rest` what is not sent of it yet."""

    window: int
    rest: memoryview | None = None
    trailers: bytes = b""


class Outlet:
    """For any number of threads. Whoever sends may wait for the socket, but never for the client's windows.

    Raises OSError where the connection is broken; after that it can't be used.
    """

    def __init__(self, connection: socket.socket | TlsSocket) -> None:
        self._socket = connection
        self._lock = Lock()
        self._streams: dict[int, _Stream] = {}
        self._window = self._initial_window = frames.DEFAULT_WINDOW

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    def send(self, data: bytes) -> None:
        with self._lock:
            self._socket.sendall(data)

    def send_at_once(self, data: bytes) -> bool:
        """Whether it could be sent without waiting. For a little data only.

        Raises OSError, and ValueError where it is closed.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLOUT)
            writable = bool(poll.poll(0))
            if writable:
                self._socket.sendall(data)
            return writable
        finally:
            self._lock.release()

    def open(self, number: int) -> None:
        """There will be an answer on this stream."""
        with self._lock:
            self._streams[number] = _Stream(self._initial_window)

    def drop(self, number: int) -> None:
        """Nobody wants the answer any more."""
        with self._lock:
            self._streams.pop(number, None)

    def answer(self, number: int, answer: Answer) -> None:
        """Send it, unless it was dropped."""
        head, body, trailers = answer
        with self._lock:
            stream = self._streams.get(number)
            if stream is None:
                return
            last = frames.header_frames(number, trailers, end_stream=True)
            start = frames.frame(HEADERS, END_HEADERS, number, head) if head else b""
            if len(body) <= min(self._window, stream.window, DEFAULT_FRAME_SIZE):
                self._window -= len(body)
                del self._streams[number]
                middle = frames.frame(DATA, 0, number, body) if body else b""
                self._socket.sendall(start + middle + last)
                return
            self._socket.sendall(start)
            stream.rest, stream.trailers = memoryview(body), last
        self._pump(number)

    def grant(self, number: int, size: int) -> None:
        """The client takes that much more, on all streams together where the number is 0.

        Raises ProtocolError.
        """
        with self._lock:
            if number == 0:
                self._window = _widened(self._window, size)
            elif number in self._streams:
                self._streams[number].window = _widened(self._streams[number].window, size)
        self._pump(*([number] if number else list(self._streams)))

    def set_initial_window(self, size: int) -> None:
        """How much of each answer the client takes to begin with. Raises ProtocolError."""
        with self._lock:
            for stream in self._streams.values():
                stream.window = _widened(stream.window, size - self._initial_window)
            self._initial_window = size
        self._pump(*list(self._streams))

    def close(self) -> None:
        """Drop all answers and close the socket, under no thread that is sending."""
        with self._lock:
            self._streams.clear()
            self._socket.close()

    def _pump(self, *numbers: int) -> None:
        for number in numbers:
            while self._send_turn(number):
                pass

    def _send_turn(self, number: int) -> bool:
        """Whether there was something to send."""
        with self._lock:
            stream, parts = self._streams.get(number), list[bytes]()
            if stream is None or stream.rest is None:
                return False
            while stream.rest and len(parts) < _TURN:
                size = min(self._window, stream.window, DEFAULT_FRAME_SIZE)
                if size <= 0:
                    break
                parts.append(frames.frame(DATA, 0, number, bytes(stream.rest[:size])))
                stream.rest = stream.rest[size:]
                self._window -= len(parts[-1]) - 9
                stream.window -= len(parts[-1]) - 9
            if not stream.rest:
                parts.append(stream.trailers)
                del self._streams[number]
            self._socket.sendall(b"".join(parts))
            return bool(parts)


def _widened(window: int, size: int) -> int:
    if window + size > LARGEST_WINDOW:
        raise ProtocolError("a window is too large", frames.FLOW_CONTROL_ERROR)
    return window + size
