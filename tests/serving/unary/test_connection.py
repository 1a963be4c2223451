"""What a server might say that gRPC's own server never does."""

import socket
import time
from collections.abc import Callable, Iterator
from threading import Thread

import grpc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from digit_serving.unary import frames
from digit_serving.unary.answers import CallError
from digit_serving.unary.connection import Connection
from tests import loop

_HEADERS = frames.header_frames(1, frames.literals([(b":status", b"200")]))
_TRAILERS = frames.header_frames(1, frames.literals([(b"grpc-status", b"0")]), end_stream=True)
_DATA = frames.frame(frames.DATA, 0, 1, frames.message(b"hello"))


class Scripted:
    """A server that greets, and answers the first bytes of a call with the same bytes always."""

    def __init__(self) -> None:
        self.said = b""
        self.heard = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = ("127.0.0.1", self._listener.getsockname()[1])
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(frames.settings())
                while b"/call" not in self.heard and (data := connection.recv(65536)):
                    self.heard += data
                connection.sendall(self.said)
            self.heard = b""

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def ask(server: Scripted) -> Callable[[bytes], bytes]:
    def ask() -> bytes:
        connection = Connection(server.address, 5)
        try:
            return connection.call(frames.literals([(b":path", b"/call")]), b"hello", time.monotonic() + 5)
        finally:
            connection.close()

    def saying(said: bytes) -> bytes:
        server.said = said
        return loop.call(ask)

    return saying


@pytest.mark.parametrize(
    "said",
    [
        _HEADERS + _DATA + _TRAILERS,
        _HEADERS + frames.frame(frames.PING, 0, 0, bytes(8)) + _DATA + _TRAILERS,
        _HEADERS + frames.settings(initial_window_size=1) + _DATA + _TRAILERS,
        _HEADERS + frames.frame(99, 0, 1, b"unknown") + _DATA + _TRAILERS,
        _HEADERS + _DATA + _TRAILERS + frames.reset(1, frames.NO_ERROR),
        _HEADERS + frames.frame(frames.GOAWAY, 0, 0, bytes((0, 0, 0, 1)) + bytes(4)) + _DATA + _TRAILERS,
        _HEADERS
        + frames.frame(frames.DATA, frames.PADDED, 1, b"\x02" + frames.message(b"hello") + b"\0\0")
        + _TRAILERS,
    ],
    ids=["plain", "ping", "settings", "unknown", "reset", "goaway", "padding"],
)
def test_what_a_server_may_say_besides(ask: Callable[[bytes], bytes], said: bytes) -> None:
    assert ask(said) == b"hello"


def _ending(*headers: tuple[bytes, bytes]) -> bytes:
    return frames.header_frames(1, frames.literals(headers), end_stream=True)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", grpc.StatusCode.UNAVAILABLE),
        (_HEADERS + _DATA, grpc.StatusCode.UNAVAILABLE),
        (frames.frame(frames.GOAWAY, 0, 0, bytes(8)), grpc.StatusCode.UNAVAILABLE),
        (frames.frame(frames.RST_STREAM, 0, 1, bytes((0, 0, 0, 7))), grpc.StatusCode.UNAVAILABLE),
        (frames.frame(frames.RST_STREAM, 0, 1, bytes((0, 0, 0, 11))), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (frames.frame(frames.RST_STREAM, 0, 1, bytes((0, 0, 0, 2))), grpc.StatusCode.INTERNAL),
        (_HEADERS + _TRAILERS, grpc.StatusCode.INTERNAL),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", grpc.StatusCode.INTERNAL),
        (frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff"), grpc.StatusCode.INTERNAL),
        (_ending((b":status", b"502")), grpc.StatusCode.UNAVAILABLE),
        (_ending((b":status", b"200")), grpc.StatusCode.UNKNOWN),
        (_ending((b":status", b"200"), (b"grpc-status", b"99")), grpc.StatusCode.UNKNOWN),
        (_ending((b":status", b"200"), (b"grpc-status", b"no")), grpc.StatusCode.UNKNOWN),
    ],
)
def test_what_is_no_answer(ask: Callable[[bytes], bytes], said: bytes, code: grpc.StatusCode) -> None:
    with pytest.raises(CallError) as caught:
        ask(said)
    assert caught.value.code() is code


@given(noise=st.binary(max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_noise_is_an_error_of_the_call(ask: Callable[[bytes], bytes], noise: bytes) -> None:
    with pytest.raises(CallError):
        ask(_HEADERS + noise)


def test_what_accepts_but_never_greets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(CallError, match="does not greet"):
        loop.call(Connection, ("127.0.0.1", listener.getsockname()[1]), 0.2)
