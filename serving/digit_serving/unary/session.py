"""A client's connection as a server has it: HTTP/2 (RFC 9113) on one side, calls on the other."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread

from digit_serving.unary import frames
from digit_serving.unary.calls import Calls
from digit_serving.unary.frames import ACK, END_HEADERS, END_STREAM, LARGEST_WINDOW, Frame, ProtocolError
from digit_serving.unary.headers import LARGEST_LIST, Fields, HeaderReader
from digit_serving.unary.outlet import Outlet
from digit_serving.unary.tls import TlsSocket

MAX_STREAMS = 128
"""Calls that a client may have under way on a connection."""

_GREETING = frames.settings(
    header_table_size=0,
    max_concurrent_streams=MAX_STREAMS,
    initial_window_size=LARGEST_WINDOW,
    max_header_list_size=LARGEST_LIST,
) + frames.window_update(0, LARGEST_WINDOW - frames.DEFAULT_WINDOW)
_TOP_UP = LARGEST_WINDOW // 2

_READ = 2**16
_GREETING_SECONDS = 10.0
_FAREWELL_SECONDS = 1.0
_PATIENCE = 0.1  # seconds that a call may keep the thread that reads
_FAREWELL = b"farewell"


@dataclass(slots=True)
class _Request:
    number: int
    headers: Fields
    begun: float
    body: list[bytes] = field(default_factory=list)
    size: int = 0
    is_whole: bool = False
    is_dropped: bool = False


@dataclass(slots=True)
class _Opening:
    """Headers of which more are to come."""

    number: int
    ends: bool
    block: bytes
    parts: int = 1


class Session:
    """Speaks with one client in a thread of its own, `serve`.

    A quick call is answered in that thread, others in the pool's. `tend` is to be called ten times a second,
    `on_end` is called at the end.
    """

    def __init__(
        self,
        connection: socket.socket | TlsSocket,
        calls: Calls,
        pool: Executor,
        age: float,
        grace: float,
        on_end: Callable[["Session"], None],
    ) -> None:
        self._socket, self._calls, self._pool, self._on_end = connection, calls, pool, on_end
        self._outlet, self._splitter, self._headers = Outlet(connection), frames.Splitter(), HeaderReader()
        self._requests: dict[int, _Request] = {}
        self._whole: list[_Request] = []
        self._opening: _Opening | None = None
        self._greeted = False
        self._last = 0
        self._reading = Lock()  # who reads, and since when that thread is at a call
        self._reader = object()
        self._busy_since: float | None = None
        now = time.monotonic()
        self._leave_at, self._grace, self._cut_at = now + age, grace, now + _GREETING_SECONDS
        self._is_leaving = self._said_farewell = False

    def serve(self) -> None:
        """Reads until the connection ends, or until another thread does so in place of this one."""
        me = self._reader
        try:
            if not self._greeted:
                self._greet()
            while self._reads(me) and (data := self._socket.recv(_READ)):
                self._take(data)
        except ProtocolError as error:
            self._give_up(error)
        except OSError:
            pass
        finally:
            if self._reads(me):
                self._outlet.close()
                self._requests.clear()
                self._on_end(self)

    def retire(self, grace: float) -> None:
        """Take no more calls and end when those under way are answered, in `grace` seconds at the most."""
        self._leave_at, self._grace = 0.0, grace
        self._cut_at = min(self._cut_at, time.monotonic() + grace)

    def tend(self, now: float) -> None:
        """Does what is due by now, without waiting."""
        if now > self._cut_at or (now > self._leave_at and not self._greeted):
            self._cut()
        elif now > self._leave_at and not self._is_leaving:
            # Calls that are on their way are still taken, until the client shows that it knows.
            notice = frames.goaway(LARGEST_WINDOW) + frames.frame(frames.PING, 0, 0, _FAREWELL)
            with suppress(OSError, ValueError):  # it has just ended
                self._is_leaving = self._outlet.send_at_once(notice)
            self._cut_at = min(self._cut_at, now + self._grace)
        elif self._said_farewell and not self._requests and not self._outlet.streams:
            self._hang_up()
        with self._reading:
            if self._busy_since and now - self._busy_since > _PATIENCE:
                self._busy_since, self._reader = None, object()
                Thread(target=self.serve, name="session", daemon=True).start()

    def _reads(self, thread: object) -> bool:
        with self._reading:
            self._busy_since = None if self._reader is thread else self._busy_since
            return self._reader is thread

    def _greet(self) -> None:
        self._outlet.send(_GREETING)
        data = b""
        while len(data) < len(frames.PREFACE):
            more = self._socket.recv(_READ)
            data += more
            if not more or not data.startswith(frames.PREFACE[: len(data)]):
                raise ProtocolError("that is no HTTP/2")
        self._take(data[len(frames.PREFACE) :])

    def _take(self, data: bytes) -> None:
        for frame in self._splitter.feed(data):
            if self._opening is not None and frame.kind != frames.CONTINUATION:
                raise ProtocolError("headers are cut off")
            if not self._greeted and frame.kind != frames.SETTINGS:
                raise ProtocolError("the settings are missing")
            if (frame.stream == 0 and frame.kind in _OF_STREAMS) or (frame.stream and frame.kind in _OF_ALL):
                raise ProtocolError("a frame has the wrong stream")
            handle = _HANDLERS.get(frame.kind)
            if handle is not None:
                handle(self, frame)
        if self._splitter.data > _TOP_UP:
            self._outlet.send(frames.window_update(0, self._splitter.data))
            self._splitter.data = 0
        if self._whole:
            whole, self._whole = self._whole, []
            self._start(whole)

    def _start(self, requests: list[_Request]) -> None:
        if len(requests) == len(self._requests) == 1 and self._calls.is_quick(requests[0].headers):
            self._busy_since = time.monotonic()
            self._answer(requests[0])
        else:
            for request in requests:
                self._pool.submit(self._answer, request)

    def _answer(self, request: _Request) -> None:
        try:
            if not request.is_dropped:
                answer = self._calls.answer(request.headers, request.body, request.begun)
                self._outlet.answer(request.number, answer)
        except OSError:
            self._cut()
        finally:
            self._requests.pop(request.number, None)

    # What each kind of frame asks for.

    def _data(self, frame: Frame) -> None:
        request = self._requests.get(frame.stream)
        if request is None or request.is_dropped:
            self._require_past(frame)
            return
        if request.is_whole:
            raise ProtocolError("a request goes on after its end")
        if frame.payload:
            request.body.append(frame.payload)
            request.size += len(frame.payload)
        if request.size > LARGEST_WINDOW:
            raise ProtocolError("a request is too large", frames.FLOW_CONTROL_ERROR)
        if frame.flags & END_STREAM:
            self._end_request(request)

    def _head(self, frame: Frame) -> None:
        opening = _Opening(frame.stream, bool(frame.flags & END_STREAM), frame.payload)
        if frame.flags & END_HEADERS:
            self._open(opening)
        else:
            self._opening = opening

    def _continuation(self, frame: Frame) -> None:
        opening = self._opening
        if opening is None or opening.number != frame.stream:
            raise ProtocolError("headers go on that did not begin")
        opening.block += frame.payload
        opening.parts += 1
        if max(len(opening.block), opening.parts * 1024) > LARGEST_LIST:
            raise ProtocolError("headers are too long", frames.ENHANCE_YOUR_CALM)
        if frame.flags & END_HEADERS:
            self._opening = None
            self._open(opening)

    def _open(self, opening: _Opening) -> None:
        number, headers = opening.number, self._headers.read(opening.block)
        if number % 2 == 0:
            raise ProtocolError("a client's streams have odd numbers")
        if number <= self._last:
            self._trailers(opening)
            return
        if self._said_farewell:
            return
        self._last = number
        if max(len(self._requests), self._outlet.streams) >= MAX_STREAMS:
            self._outlet.send(frames.reset(number, frames.REFUSED_STREAM))
            return
        request = self._requests[number] = _Request(number, headers, time.monotonic())
        self._outlet.open(number)
        if opening.ends:
            self._end_request(request)

    def _trailers(self, opening: _Opening) -> None:
        request = self._requests.get(opening.number)
        if not opening.ends or (request is not None and request.is_whole):
            raise ProtocolError("a stream begins twice")
        if request is not None:
            self._end_request(request)

    def _end_request(self, request: _Request) -> None:
        request.is_whole = True
        self._whole.append(request)

    def _reset(self, frame: Frame) -> None:
        self._require_past(frame)
        self._outlet.drop(frame.stream)
        request = self._requests.get(frame.stream)
        if request is not None:
            request.is_dropped = True
            if not request.is_whole:  # else it counts until a thread has seen it
                del self._requests[frame.stream]

    def _settings(self, frame: Frame) -> None:
        if frame.flags & ACK:
            return
        values = frames.read_settings(frame.payload)
        window = values.get(frames.INITIAL_WINDOW_SIZE)
        if window is not None and window > LARGEST_WINDOW:
            raise ProtocolError("a window is too large", frames.FLOW_CONTROL_ERROR)
        if not self._greeted:
            self._greeted, self._cut_at = True, float("inf")
        self._outlet.send(frames.frame(frames.SETTINGS, ACK, 0))
        if window is not None:
            self._outlet.set_initial_window(window)

    def _ping(self, frame: Frame) -> None:
        if len(frame.payload) != 8:
            raise ProtocolError("a ping has eight bytes", frames.FRAME_SIZE_ERROR)
        if not frame.flags & ACK:
            self._outlet.send(frames.frame(frames.PING, ACK, 0, frame.payload))
        elif frame.payload == _FAREWELL and self._is_leaving:
            self._said_farewell = True
            self._outlet.send(frames.goaway(self._last))

    def _window_update(self, frame: Frame) -> None:
        self._require_past(frame)
        size = frames.number(frame.payload)
        if size == 0:
            raise ProtocolError("a window is widened by nothing")
        self._outlet.grant(frame.stream, size)

    def _push(self, frame: Frame) -> None:
        raise ProtocolError("a client can't push")

    def _require_past(self, frame: Frame) -> None:
        if frame.stream > self._last and not self._said_farewell:
            raise ProtocolError("a stream has not begun")

    # The end.

    def _give_up(self, error: ProtocolError) -> None:
        with suppress(OSError):
            self._outlet.send(frames.goaway(self._last, error.code, str(error)))
            self._hang_up()
            while self._socket.recv(_READ):  # what is not read would take what was sent with it
                pass

    def _hang_up(self) -> None:
        self._cut_at = min(self._cut_at, time.monotonic() + _FAREWELL_SECONDS)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _cut(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


_OF_STREAMS = {frames.DATA, frames.HEADERS, frames.RST_STREAM, frames.CONTINUATION}
_OF_ALL = {frames.SETTINGS, frames.PING, frames.GOAWAY}
_HANDLERS: dict[int, Callable[[Session, Frame], None]] = {
    frames.DATA: Session._data,
    frames.HEADERS: Session._head,
    frames.RST_STREAM: Session._reset,
    frames.SETTINGS: Session._settings,
    frames.PUSH_PROMISE: Session._push,
    frames.PING: Session._ping,
    frames.WINDOW_UPDATE: Session._window_update,
    frames.CONTINUATION: Session._continuation,
}
