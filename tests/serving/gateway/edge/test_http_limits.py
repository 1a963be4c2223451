"""HTTP limits on real connections, in front of an application that echoes."""

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from uvicorn import Config, Server

from digit_serving.gateway.bridge import Receive, Scope, Send
from digit_serving.gateway.edge.http_limits import ABANDONED, LimitedHttpProtocol
from digit_serving.gateway.edge.memory import MemoryBudget
from tests.processes import accepts, free_port, wait_until
from tests.serving.gateway.helpers import echo

pytestmark = pytest.mark.xdist_group("timing")

ARRIVAL_SECONDS, PAUSE_SECONDS, LONG_SECONDS = 1.1, 0.6, 30
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class FastHttpProtocol(LimitedHttpProtocol):
    """Protocol with short timeouts, which counts the heads that it parses."""

    arrival_seconds = ARRIVAL_SECONDS
    pause_seconds = PAUSE_SECONDS
    memory = MemoryBudget(12 * 2**20)
    heads = 0

    def on_headers_complete(self) -> None:
        FastHttpProtocol.heads += 1
        super().on_headers_complete()


class ArrivalProtocol(FastHttpProtocol):
    """Protocol that closes a connection for its arrival time only."""

    pause_seconds = LONG_SECONDS


class PauseProtocol(FastHttpProtocol):
    """Protocol that closes a connection for its pauses only."""

    arrival_seconds = LONG_SECONDS


class PatientProtocol(ArrivalProtocol):
    """Protocol that closes no connection for its time."""

    arrival_seconds = LONG_SECONDS


class TwoConnectionsProtocol(FastHttpProtocol):
    address_connections = 2


class LateProtocol(FastHttpProtocol):
    """Protocol that answers just after its connection was lost, as happens in a flood."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")


released = threading.Event()
"""Event for which the answers at the path /slow wait."""


abandoned = threading.Event()
"""Set once an answer at the path /slow is of no use to anybody."""


async def slow_echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo; at the path /slow, after `released`."""
    while scope["path"] == "/slow" and not released.is_set():
        await asyncio.sleep(0.01)
        if ABANDONED in scope:
            abandoned.set()
    await echo(scope, receive, send)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Event `released`, not yet set."""
    released.clear()
    abandoned.clear()
    yield released
    released.set()


@contextmanager
def serving(protocol: type[LimitedHttpProtocol], keep_alive: int = LONG_SECONDS) -> Iterator[int]:
    """Run a server in a thread; yield its port."""
    port = free_port()
    options: dict[str, Any] = {"ws": "none", "lifespan": "off", "log_config": None}
    server = Server(Config(slow_echo, port=port, http=protocol, timeout_keep_alive=keep_alive, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: accepts(port))
        yield port
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Port of a server that closes no connection for its time."""
    with serving(PatientProtocol) as port:
        yield port


@pytest.fixture(scope="module")
def hasty_port() -> Iterator[int]:
    """Port of a server with short timeouts."""
    with serving(FastHttpProtocol) as port:
        yield port


def connect(port: int, data: bytes = b"") -> socket.socket:
    """Send data on a new connection."""
    connection = socket.create_connection(("127.0.0.1", port), LONG_SECONDS / 2)
    connection.sendall(data)
    return connection


def exchange(port: int, *parts: bytes, pause: float = 0, half_close: bool = False) -> tuple[bytes, float]:
    """Send parts `pause` seconds apart; return the bytes and the seconds until the server closes."""
    started, received = time.monotonic(), b""
    with connect(port) as connection:
        with suppress(OSError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while data := connection.recv(65_536):
                received += data
    return received, time.monotonic() - started


@pytest.mark.parametrize(
    ("protocol", "least"), [(ArrivalProtocol, ARRIVAL_SECONDS), (PauseProtocol, PAUSE_SECONDS)]
)
def test_request_incomplete_is_closed(protocol: type[FastHttpProtocol], least: float) -> None:
    parts = (b"", b"POST / HT", HEAD, HEAD + b"abc")
    with serving(protocol) as port, ThreadPoolExecutor(len(parts)) as callers:
        for received, seconds in callers.map(partial(exchange, port), parts):
            assert received == b""
            assert seconds > least / 2, "closed at once"


def test_request_byte_by_byte_is_closed_after_its_arrival_time(hasty_port: int) -> None:
    received, seconds = exchange(hasty_port, *(bytes([byte]) for byte in HEAD), pause=0.1)
    assert received == b""
    assert ARRIVAL_SECONDS / 2 < seconds < 0.1 * len(HEAD), "neither at once nor after the last byte"


def test_request_expect_continue_gets_100_before_answer(port: int) -> None:
    head = HEAD.removesuffix(b"\r\n") + b"Expect: 100-continue\r\n\r\n"
    received, _ = exchange(port, head, b"12345", pause=0.05, half_close=True)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n12345")


def test_request_long_trailers_get_400(port: int) -> None:
    chunked = CHUNKED + b"5\r\n12345\r\n0\r\n"
    received, _ = exchange(port, chunked + b"a: b\r\n" * 100 + b"\r\n", half_close=True)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    received, _ = exchange(port, chunked + b"a: b\r\n" * 12_000, b"a: b\r\n" * 12_000 + b"\r\n", pause=0.05)
    assert b"HTTP/1.1 400 " in received


def test_request_slow_but_within_arrival_time_is_answered(hasty_port: int) -> None:
    received, _ = exchange(hasty_port, HEAD[:20], HEAD[20:], b"abc", b"de", pause=0.05, half_close=True)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nabcde")


def test_connection_idle_longer_than_arrival_time_stays_open(hasty_port: int) -> None:
    received, _ = exchange(hasty_port, HEAD + b"12345", HEAD + b"67890", pause=1.2, half_close=True)
    assert re.findall(rb"\d{5}", received) == [b"12345", b"67890"]


def test_connection_without_next_request_is_closed() -> None:
    with serving(PatientProtocol, keep_alive=1) as port:
        received, seconds = exchange(port, HEAD + b"12345")
    assert re.findall(rb"\d{5}", received) == [b"12345"]
    assert seconds > 0.5, "closed at once"


def test_connection_with_a_blank_line_for_a_request_is_closed(hasty_port: int) -> None:
    received, _ = exchange(hasty_port, HEAD + b"12345", b"\r\n", pause=0.1)
    assert re.findall(rb"\d{5}", received) == [b"12345"]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_request_with_upgrade_is_answered_as_http_1(port: int, protocol: bytes) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: x\r\n\r\n" % protocol
    head = HEAD.removesuffix(b"\r\n") + upgrade
    for parts in ([head + b"12345"], [head, b"123", b"45"], [head[:-1], b"\n12345"]):
        received, _ = exchange(port, *parts, HEAD + b"67890", head + b"12345", pause=0.05, half_close=True)
        assert re.findall(rb"\d{5}", received) == [b"12345", b"67890", b"12345"]
        assert received.count(b"HTTP/1.1 200 OK\r\n") == 3


@pytest.mark.parametrize(
    "request_",
    [
        b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n",
        CHUNKED + b"100000\r\n" + b"\r\n" * 2**19,
    ],
    ids=["connect", "blank lines"],
)
def test_request_connect_or_body_of_many_blank_lines_gets_400(port: int, request_: bytes) -> None:
    assert exchange(port, request_)[0].startswith(b"HTTP/1.1 400 ")


def test_request_malformed_after_valid_gets_400_and_close(port: int) -> None:
    received, _ = exchange(port, HEAD + b"12345", b"nonsense" + HEAD + b"67890", pause=0.05)
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"200", b"400"]
    assert re.findall(rb"\d{5}", received) == [b"12345"]


@pytest.mark.parametrize("part", [b"POST", HEAD, HEAD + b"abc"])
def test_request_cut_off_gets_400(port: int, part: bytes) -> None:
    assert exchange(port, part, half_close=True)[0].startswith(b"HTTP/1.1 400 ")


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    bodies = [b"%05d" % number for number in range(50)]
    with_length = [HEAD + body for body in bodies]
    # A blank line within the data is not the end of the body.
    chunked = [CHUNKED + b"9\r\n%b\r\n\r\n\r\n0\r\n\r\n" % body for body in bodies]
    requests = b"".join(part for pair in zip(with_length, chunked, strict=True) for part in pair)
    requests += b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    for parts in ([requests], [requests[:-1], requests[-1:]], [requests[:130], requests[130:]]):
        received, _ = exchange(port, *parts, pause=0.05)
        assert re.findall(rb"\n(\d{5})", received) == [body for body in bodies for _ in range(2)]


def test_pipelined_request_is_parsed_after_the_answer_before_it(port: int, release: threading.Event) -> None:
    before = FastHttpProtocol.heads
    with connect(port, HEAD.replace(b"/", b"/slow", 1) + b"12345" + b"GET / HTTP/1.1\r\n\r\n" * 1000):
        wait_until(lambda: FastHttpProtocol.heads == before + 1)
        exchange(port, HEAD + b"67890", half_close=True)
        assert FastHttpProtocol.heads == before + 2
        release.set()
        wait_until(lambda: FastHttpProtocol.heads == before + 1002)


def test_pipelined_requests_far_ahead_are_closed(port: int) -> None:
    received, _ = exchange(port, b"GET / HTTP/1.1\r\n\r\n" * 14_000)
    assert received == b""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"aa:b\r\n" * 100, b"200"),
        (b"GET / HTTP/1.1\r\n" + b"aa:b\r\n" * 101, b"431"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 16_000 + b"\r\n", b"200"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 16_384 + b"\r\n", b"431"),
        (b"GET /" + b"b" * 16_384 + b" HTTP/1.1\r\n", b"414"),
    ],
    ids=["100 fields", "101 fields", "16 kB", "16 KiB", "long path"],
)
def test_request_head_beyond_limits_is_refused(port: int, head: bytes, status: bytes) -> None:
    received, _ = exchange(port, head + b"\r\n", half_close=True)
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [status]


@pytest.mark.parametrize("size", [8 * 2**20, 16 * 2**20], ids=["within memory", "beyond memory"])
def test_answer_that_is_not_read_is_cut_off(hasty_port: int, size: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hasty_port))
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        if size < FastHttpProtocol.memory.limit:
            wait_until(lambda: FastHttpProtocol.memory.held > 0)
        wait_until(lambda: FastHttpProtocol.memory.held == 0)
        received = 0
        with suppress(ConnectionError):
            while data := connection.recv(65_536):
                received += len(data)
    assert received < size


def test_answer_that_is_read_slowly_arrives(hasty_port: int) -> None:
    size = 8 * 2**20
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size
    with connect(hasty_port, head + bytes(size)) as connection:
        received, end = 0, time.monotonic() + 3 * PAUSE_SECONDS
        while received < size:
            if time.monotonic() < end:
                time.sleep(0.05)
            part = connection.recv(262_144)
            assert part, "the answer was cut off"
            received += len(part)


def test_heads_beyond_the_memory_budget_are_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastHttpProtocol.memory, "limit", 2**20)
    head = b"GET / HTTP/1.1\r\na: " + b"b" * 16_000
    with ExitStack() as stack:
        callers = [stack.enter_context(connect(port, head)) for _ in range(200)]
        wait_until(lambda: FastHttpProtocol.memory.held > 2**20 - 16_000)
        assert exchange(port, HEAD + b"12345", half_close=True)[0].endswith(b"12345")
        with suppress(ConnectionResetError):
            assert callers[-1].recv(1) == b""
    wait_until(lambda: FastHttpProtocol.memory.held == 0)


def test_connection_beyond_those_of_an_address_closes_the_oldest_that_waits(release: threading.Event) -> None:
    with serving(TwoConnectionsProtocol) as port, ExitStack() as stack:
        before = FastHttpProtocol.heads
        busy = stack.enter_context(connect(port, HEAD.replace(b"/", b"/slow", 1) + b"12345"))
        wait_until(lambda: FastHttpProtocol.heads == before + 1)
        # The server accepts connections in this order.
        oldest, second, third = (stack.enter_context(connect(port)) for _ in range(3))
        with suppress(ConnectionResetError):
            assert oldest.recv(1) == b""
        release.set()
        assert busy.recv(4096).endswith(b"12345")
        for connection in (third, busy):
            connection.sendall(HEAD + b"67890")
            assert connection.recv(4096).endswith(b"67890")
        with suppress(ConnectionResetError):
            assert second.recv(1) == b""
    assert TwoConnectionsProtocol._waiting == {}


def test_request_learns_the_reset_of_its_connection(port: int, release: threading.Event) -> None:
    request = HEAD.replace(b"/", b"/slow", 1) + b"12345"
    with connect(port, request) as reading:
        reading.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        assert not abandoned.is_set(), "the caller still reads"
    with connect(port, request) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(abandoned.is_set, seconds=10)


def test_answer_on_a_lost_connection_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with serving(LateProtocol) as port:
        exchange(port, HEAD + b"12345", half_close=True)
    assert caplog.messages == []
