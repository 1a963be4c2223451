"""HTTP limits on real connections, in front of an application that echoes."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from uvicorn import Config, Server

from digit_serving.gateway.http_limits import LimitedHttpProtocol
from tests.processes import accepts, free_port, wait_until
from tests.serving.gateway.conftest import echo

pytestmark = pytest.mark.xdist_group("timing")

ARRIVAL_SECONDS, PAUSE_SECONDS, KEEP_ALIVE_SECONDS = 1.1, 0.6, 2
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


class FastHttpProtocol(LimitedHttpProtocol):
    arrival_seconds = ARRIVAL_SECONDS
    pause_seconds = PAUSE_SECONDS


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Port of a server with short timeouts."""
    port = free_port()
    config = Config(
        echo,
        port=port,
        http=FastHttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: accepts(port))
    yield port
    server.should_exit = True
    thread.join()


def exchange(port: int, *parts: bytes, pause: float = 0, half_close: bool = False) -> tuple[bytes, float]:
    """Send parts `pause` seconds apart; return the bytes and the seconds until the server closes."""
    started, received = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(3)
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
    "parts",
    [[b""], [b"POST / HT"], [HEAD], [HEAD + b"abc"], [bytes([byte]) for byte in HEAD]],
    ids=["nothing", "request line", "head", "body", "byte by byte"],
)
def test_request_incomplete_after_arrival_time_is_closed(port: int, parts: list[bytes]) -> None:
    received, seconds = exchange(port, *parts, pause=0.1 if len(parts) > 1 else 0)
    assert received == b""
    assert 0.2 < seconds < 2


def test_request_that_pauses_is_closed_before_its_arrival_time(port: int) -> None:
    received, seconds = exchange(port, HEAD, b"a")
    assert received == b""
    assert PAUSE_SECONDS <= seconds < ARRIVAL_SECONDS


def test_request_expect_continue_gets_100_before_answer(port: int) -> None:
    head = HEAD.removesuffix(b"\r\n") + b"Expect: 100-continue\r\n\r\n"
    received, _ = exchange(port, head, b"12345", pause=0.05, half_close=True)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n12345")


def test_request_long_trailers_get_400(port: int) -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n"
    received, _ = exchange(port, chunked + b"a: b\r\n" * 100 + b"\r\n", half_close=True)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    received, _ = exchange(port, chunked + b"a: b\r\n" * 12_000, b"a: b\r\n" * 12_000 + b"\r\n", pause=0.05)
    assert b"HTTP/1.1 400 " in received


def test_request_slow_but_within_arrival_time_is_answered(port: int) -> None:
    received, _ = exchange(port, HEAD[:20], HEAD[20:], b"abc", b"de", pause=0.05, half_close=True)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nabcde")


def test_connection_idle_longer_than_arrival_time_stays_open(port: int) -> None:
    received, _ = exchange(port, HEAD + b"12345", HEAD + b"67890", pause=1.2, half_close=True)
    assert re.findall(rb"\d{5}", received) == [b"12345", b"67890"]


@pytest.mark.parametrize(("part", "least", "most"), [(b"", 1.9, 2.9), (b"\r\n", 0.3, 1.5)])
def test_connection_without_next_request_is_closed(port: int, part: bytes, least: float, most: float) -> None:
    received, seconds = exchange(port, HEAD + b"12345", part, pause=0.1)
    assert re.findall(rb"\d{5}", received) == [b"12345"]
    assert least < seconds < most


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_request_with_upgrade_is_answered_as_http_1(port: int, protocol: bytes) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: x\r\n\r\n" % protocol
    head = HEAD.removesuffix(b"\r\n") + upgrade
    for parts in ([head + b"12345"], [head, b"123", b"45"], [head[:-1], b"\n12345"]):
        received, _ = exchange(port, *parts, HEAD + b"67890", head + b"12345", pause=0.05, half_close=True)
        assert re.findall(rb"\d{5}", received) == [b"12345", b"67890", b"12345"]
        assert received.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_request_connect_gets_400(port: int) -> None:
    received, _ = exchange(port, b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("nonsense", [b"nonsense", b"GET / HTTP/3.0\r\n\r\n"])
def test_request_malformed_after_valid_gets_400_and_close(port: int, nonsense: bytes) -> None:
    received, seconds = exchange(port, HEAD + b"12345", nonsense + HEAD + b"67890", pause=0.05)
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"200", b"400"]
    assert re.findall(rb"\d{5}", received) == [b"12345"]
    assert seconds < 0.4


@pytest.mark.parametrize("parts", [[b"POST"], [HEAD], [HEAD + b"abc"]])
def test_request_cut_off_gets_400(port: int, parts: list[bytes]) -> None:
    received, _ = exchange(port, *parts, half_close=True)
    assert received.startswith(b"HTTP/1.1 400 ")
