"""A client's connection as a server has it: HTTP/2 (RFC 9113) on one side, calls on the other."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from threading import Lock, Thread

from digit_serving.unary import frames
from digit_serving.unary.calls import Calls
from digit_serving.unary.frames import ACK, LARGEST_WINDOW, Frame, ProtocolError
from digit_serving.unary.headers import LARGEST_LIST
from digit_serving.unary.outlet import Outlet
from digit_serving.unary.requests import MAX_STREAMS, Request, Requests
from digit_serving.unary.tls import TlsSocket

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

_OF_STREAMS = {frames.DATA, frames.HEADERS, frames.RST_STREAM, frames.CONTINUATION}
_OF_ALL = {frames.SETTINGS, frames.PING, frames.GOAWAY}


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
        self._outlet, self._splitter = Outlet(connection), frames.Splitter()
        self._requests = Requests(self._outlet)
        self._handlers = {
            frames.DATA: self._requests.data,
            frames.HEADERS: self._requests.head,
            frames.RST_STREAM: self._requests.reset,
            frames.SETTINGS: self._settings,
            frames.PUSH_PROMISE: self._push,
            frames.PING: self._ping,
            frames.WINDOW_UPDATE: self._window_update,
            frames.CONTINUATION: self._requests.continuation,
        }
        self._greeted = False
        self._reading = Lock()  # who reads, and since when that thread is at a call
        self._reader = object()
        self._busy_since: float | None = None
        now = time.monotonic()
        self._leave_at, self._grace, self._cut_at = now + age, grace, now + _GREETING_SECONDS
        self._is_leaving = False

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
                self._requests.under_way.clear()
                self._on_end(self)

    def retire(self, grace: float) -> None:
        """Take no more calls and end when those under way are answered, in `grace` seconds at the most."""
        self._leave_at, self._grace = 0.0, grace
        self._cut_at = min(self._cut_at, time.monotonic() + grace)

    def tend(self, now: float) -> None:
        """Does what is due by now, without waiting."""
        if now > self._cut_at or (now > self._leave_at and not self._greeted):
            self._cut()
        elif self._requests.is_over and not self._requests.under_way and not self._outlet.streams:
            self._hang_up()
        elif now > self._leave_at and not self._requests.is_over:
            with suppress(OSError, ValueError):  # it has just ended
                self._leave(now)
        with self._reading:
            if self._busy_since and now - self._busy_since > _PATIENCE:
                self._busy_since, self._reader = None, object()
                Thread(target=self.serve, name="session", daemon=True).start()

    def _leave(self, now: float) -> None:
        if not self._is_leaving:
            # Calls that are on their way are still taken until the client shows that it knows.
            notice = frames.goaway(LARGEST_WINDOW) + frames.frame(frames.PING, 0, 0, _FAREWELL)
            self._is_leaving = self._outlet.send_at_once(notice)
            self._leave_at = now + _FAREWELL_SECONDS
            self._cut_at = min(self._cut_at, now + self._grace)
        else:  # it may read nothing while it makes no call
            self._requests.is_over = self._outlet.send_at_once(frames.goaway(self._requests.last))

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
            self._requests.require_no_opening(frame)
            if not self._greeted and frame.kind != frames.SETTINGS:
                raise ProtocolError("the settings are missing")
            if (frame.stream == 0 and frame.kind in _OF_STREAMS) or (frame.stream and frame.kind in _OF_ALL):
                raise ProtocolError("a frame has the wrong stream")
            handle = self._handlers.get(frame.kind)
            if handle is not None:
                handle(frame)
        if self._splitter.data > _TOP_UP:
            self._outlet.send(frames.window_update(0, self._splitter.data))
            self._splitter.data = 0
        self._start(self._requests.take_whole())

    def _start(self, requests: list[Request]) -> None:
        if len(requests) == len(self._requests.under_way) == 1 and self._calls.is_quick(requests[0].headers):
            self._busy_since = time.monotonic()
            self._answer(requests[0])
        else:
            for request in requests:
                self._pool.submit(self._answer, request)

    def _answer(self, request: Request) -> None:
        try:
            if not request.is_dropped:
                answer = self._calls.answer(request.headers, request.body, request.begun)
                self._outlet.answer(request.number, answer)
        except OSError:
            self._cut()
        finally:
            self._requests.under_way.pop(request.number, None)

    # What each kind of frame asks for.

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
            self._requests.is_over = True
            self._outlet.send(frames.goaway(self._requests.last))

    def _window_update(self, frame: Frame) -> None:
        self._requests.require_past(frame)
        size = frames.number(frame.payload)
        if size == 0:
            raise ProtocolError("a window is widened by nothing")
        self._outlet.grant(frame.stream, size)

    def _push(self, frame: Frame) -> None:
        raise ProtocolError("a client can't push")

    # The end.

    def _give_up(self, error: ProtocolError) -> None:
        with suppress(OSError):
            self._outlet.send(frames.goaway(self._requests.last, error.code, str(error)))
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
