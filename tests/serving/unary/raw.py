"""A client that sends what no library would."""

import contextlib
import socket
from collections.abc import Callable
from types import TracebackType

from hpack import Decoder

from digit_serving.unary import frames
from digit_serving.unary.frames import Frame, Splitter

SETTINGS = frames.settings()


def headers(path: str = "/test/Echo", **more: str) -> bytes:
    """A request's header block; `grpc_timeout="1S"` adds a header."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    return frames.literals((name.encode(), value.encode()) for name, value in fields.items())


def request(stream: int, message: bytes, path: str = "/test/Echo", **more: str) -> bytes:
    """A whole call of a message that fits a frame."""
    data = frames.frame(frames.DATA, frames.END_STREAM, stream, frames.message(message))
    return frames.header_frames(stream, headers(path, **more)) + data


class RawClient:
    """A connection; what comes in stays in `frames`."""

    def __init__(self, address: str, start: bytes = frames.PREFACE + SETTINGS) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), 10)
        self.frames: list[Frame] = []
        self._splitter, self._decoder = Splitter(), Decoder()
        self.socket.sendall(start)

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait_for(self, condition: Callable[[Frame], bool]) -> Frame:
        """The first frame that came or comes of which this is true. Raises EOFError if none does."""
        at = 0
        while True:
            for frame in self.frames[at:]:
                if condition(frame):
                    return frame
            at = len(self.frames)
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.frames += self._splitter.feed(data)

    def answer(self, stream: int) -> tuple[dict[str, str], bytes]:
        """All headers of an answer, and its body."""
        self.wait_for(lambda frame: frame.stream == stream and _ends(frame))
        own = [frame for frame in self.frames if frame.stream == stream]
        fields: dict[str, str] = {}
        for frame in own:
            if frame.kind == frames.HEADERS:
                fields |= {str(name): str(value) for name, value in self._decoder.decode(frame.payload)}
        return fields, b"".join(frame.payload for frame in own if frame.kind == frames.DATA)

    def error(self) -> int:
        """What the server says it closes the connection for, as it must then do."""
        with contextlib.suppress(EOFError):
            self.wait_for(lambda _: False)
        goaway = next(frame for frame in self.frames if frame.kind == frames.GOAWAY)
        return int.from_bytes(goaway.payload[4:8], "big")


def _ends(frame: Frame) -> bool:
    return frame.kind == frames.HEADERS and bool(frame.flags & frames.END_STREAM)
