"""HTTP limits on real connections, before an application that echoes."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from uvicorn import Config, Server

from digit_serving.gateway import http_limits
from digit_serving.gateway.http_limits import LimitedHttpProtocol
from tests.processes import accepts, free_port, wait_until
from tests.serving.gateway.conftest import echo

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Port of a server that gives a request half a second to arrive, and two until the next one begins."""
    monkeypatch.setattr(http_limits, "_ARRIVAL_SECONDS", 0.5)
    port = free_port()
    config = Config(
        echo,
        port=port,
        http=LimitedHttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=2,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: accepts(port))
    yield port
    server.should_exit = True
    thread.join()


def said(port: int, *parts: bytes, pause: float = 0, ends: bool = False) -> tuple[bytes, float]:
    """What the server says to these parts, `pause` seconds apart, until it ends; and when that is."""
    started, got = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(3)
        with suppress(OSError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while data := connection.recv(65_536):
                got += data
    return got, time.monotonic() - started


@pytest.mark.parametrize("parts", [[b""], [b"POST / HT"], [HEAD], [HEAD + b"abc"], [*HEAD]])
def test_who_takes_too_long_is_left(port: int, parts: list[bytes]) -> None:
    parts = [bytes([part]) if isinstance(part, int) else part for part in parts]
    got, seconds = said(port, *parts, pause=0.1 if len(parts) > 1 else 0)
    assert got == b""
    assert 0.4 < seconds < 2


def test_who_asks_whether_to_go_on_is_told_before_the_answer(port: int) -> None:
    asking = HEAD.removesuffix(b"\r\n") + b"Expect: 100-continue\r\n\r\n"
    got, _ = said(port, asking, b"12345", pause=0.05, ends=True)
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\n12345")


def test_headers_after_a_body_are_bounded_as_well(port: int) -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n"
    got, _ = said(port, chunked + b"a: b\r\n" * 100 + b"\r\n", ends=True)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    got, _ = said(port, chunked + b"a: b\r\n" * 12_000, b"a: b\r\n" * 12_000 + b"\r\n", pause=0.05)
    assert b"HTTP/1.1 400 " in got


def test_an_answer_may_be_a_head_alone(port: int) -> None:
    got, _ = said(port, HEAD.replace(b"POST", b"HEAD") + b"12345", ends=True)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"content-length: 5\r\n\r\n")


def test_who_stays_in_time_is_answered(port: int) -> None:
    got, _ = said(port, HEAD[:20], HEAD[20:], b"abc", b"de", pause=0.05, ends=True)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\nabcde")


def test_the_time_between_two_requests_is_another_one(port: int) -> None:
    got, _ = said(port, HEAD + b"12345", HEAD + b"67890", pause=0.8, ends=True)
    assert re.findall(rb"\d{5}", got) == [b"12345", b"67890"]


@pytest.mark.parametrize(("part", "least", "most"), [(b"", 1.9, 2.9), (b"\r\n", 0.5, 1.5)])
def test_who_asks_nothing_more_is_left(port: int, part: bytes, least: float, most: float) -> None:
    got, seconds = said(port, HEAD + b"12345", part, pause=0.1)
    assert re.findall(rb"\d{5}", got) == [b"12345"]
    assert least < seconds < most


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_another_protocol_is_declined(port: int, protocol: bytes) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: x\r\n\r\n" % protocol
    asking = HEAD.removesuffix(b"\r\n") + upgrade
    for parts in ([asking + b"12345"], [asking, b"123", b"45"], [asking[:-1], b"\n12345"]):
        got, _ = said(port, *parts, HEAD + b"67890", asking + b"12345", pause=0.05, ends=True)
        assert re.findall(rb"\d{5}", got) == [b"12345", b"67890", b"12345"]
        assert got.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_it_is_no_way_to_elsewhere(port: int) -> None:
    got, _ = said(port, b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400 ")


def test_requests_may_come_together(port: int) -> None:
    got, _ = said(port, (HEAD + b"12345") + (HEAD + b"67890"), ends=True)
    assert re.findall(rb"\d{5}", got) == [b"12345", b"67890"]


def test_who_sends_no_more_still_gets_an_answer(port: int) -> None:
    got, seconds = said(port, HEAD + b"12345", ends=True)
    assert got.endswith(b"12345")
    assert seconds < 0.4


@pytest.mark.parametrize("nonsense", [b"nonsense", b"GET / HTTP/3.0\r\n\r\n"])
def test_nonsense_after_requests_ends_the_connection(port: int, nonsense: bytes) -> None:
    got, seconds = said(port, HEAD + b"12345", nonsense + HEAD + b"67890", pause=0.05)
    assert re.findall(rb"HTTP/1.1 (\d+) ", got) == [b"200", b"400"]
    assert re.findall(rb"\d{5}", got) == [b"12345"]
    assert seconds < 0.4


@pytest.mark.parametrize("parts", [[b"POST"], [HEAD], [HEAD + b"abc"]])
def test_what_ends_early_is_no_request(port: int, parts: list[bytes]) -> None:
    got, _ = said(port, *parts, ends=True)
    assert got.startswith(b"HTTP/1.1 400 ")
