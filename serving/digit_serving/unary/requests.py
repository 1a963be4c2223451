"""The requests of one connection, put together from frames (RFC 9113, 5.1 and 8.1)."""

import time
from dataclasses import dataclass, field

from digit_serving.unary import frames
from digit_serving.unary.frames import END_HEADERS, END_STREAM, LARGEST_WINDOW, Frame, ProtocolError
from digit_serving.unary.headers import LARGEST_LIST, Fields, HeaderReader
from digit_serving.unary.outlet import Outlet

MAX_STREAMS = 128
"""Calls that a client may have under way on a connection."""


@dataclass(slots=True)
class Request:
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


class Requests:
    """Those `under_way` by the numbers of their streams: coming, or at work; `last` is the newest one's.

    None are taken any more once it `is_over`. What takes a frame raises ProtocolError.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet, self._headers = outlet, HeaderReader()
        self._opening: _Opening | None = None
        self._whole: list[Request] = []
        self.under_way: dict[int, Request] = {}
        self.last = 0
        self.is_over = False

    def take_whole(self) -> list[Request]:
        """Those that became whole since the last time."""
        whole, self._whole = self._whole, []
        return whole

    def require_no_opening(self, frame: Frame) -> None:
        """Nothing comes between headers."""
        if self._opening is not None and frame.kind != frames.CONTINUATION:
            raise ProtocolError("headers are cut off")

    def data(self, frame: Frame) -> None:
        request = self.under_way.get(frame.stream)
        if request is None or request.is_dropped:
            self.require_past(frame)
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

    def head(self, frame: Frame) -> None:
        opening = _Opening(frame.stream, bool(frame.flags & END_STREAM), frame.payload)
        if frame.flags & END_HEADERS:
            self._open(opening)
        else:
            self._opening = opening

    def continuation(self, frame: Frame) -> None:
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

    def reset(self, frame: Frame) -> None:
        self.require_past(frame)
        self._outlet.drop(frame.stream)
        request = self.under_way.get(frame.stream)
        if request is not None:
            request.is_dropped = True
            if not request.is_whole:  # else it counts until a thread has seen it
                del self.under_way[frame.stream]

    def require_past(self, frame: Frame) -> None:
        if frame.stream > self.last and not self.is_over:
            raise ProtocolError("a stream has not begun")

    def _open(self, opening: _Opening) -> None:
        number, headers = opening.number, self._headers.read(opening.block)
        if number % 2 == 0:
            raise ProtocolError("a client's streams have odd numbers")
        if number <= self.last:
            self._trailers(opening)
            return
        if self.is_over:
            return
        self.last = number
        if max(len(self.under_way), self._outlet.streams) >= MAX_STREAMS:
            self._outlet.send(frames.reset(number, frames.REFUSED_STREAM))
            return
        request = self.under_way[number] = Request(number, headers, time.monotonic())
        self._outlet.open(number)
        if opening.ends:
            self._end_request(request)

    def _trailers(self, opening: _Opening) -> None:
        request = self.under_way.get(opening.number)
        if not opening.ends or (request is not None and request.is_whole):
            raise ProtocolError("a stream begins twice")
        if request is not None:
            self._end_request(request)

    def _end_request(self, request: Request) -> None:
        request.is_whole = True
        self._whole.append(request)
