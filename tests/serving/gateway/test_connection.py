"""Connections to a server that has much to do."""

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Self

import pytest
from uvicorn import Config, Server

from digit_serving.gateway import backlog as backlog_module
from digit_serving.gateway.asgi import WAITED, Receive, Scope, Send
from digit_serving.gateway.backlog import Backlog
from digit_serving.gateway.connection import Connection
from digit_serving.gateway.metrics import Metrics
from tests.processes import accepts, free_port, wait_until
from tests.serving.gateway.conftest import echo

AT_ONCE, MOST = 32, 35
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
WHOLE = HEAD % 5 + b"12345"
HEALTH = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


class Service:
    """A server in a thread of its own, which says what it got, and can have much to do."""

    def __init__(self, patience: float = 60.0) -> None:
        self.port = free_port()
        self.waited: list[float] = []
        """Seconds that each waited of those who had to."""
        self._backlog = Backlog(MOST, patience)
        config = Config(
            self._answer,
            interface="asgi3",
            port=self.port,
            http=partial(Connection, self._backlog, Metrics()),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
        )
        self.server = Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        wait_until(lambda: accepts(self.port))
        with self.client() as client:
            assert ask(client, HEALTH).startswith(b"HTTP/1.1 200 OK")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        if WAITED in scope:
            self.waited.append(scope[WAITED])
        await echo(scope, receive, send)

    def have_much_to_do(self) -> None:
        for _ in range(AT_ONCE):
            self._loop.call_soon_threadsafe(self._backlog.take)
            self._loop.call_soon_threadsafe(self._backlog.begin)
        wait_until(lambda: self._backlog.is_long)

    @property
    def is_full(self) -> bool:
        return self._backlog.is_full

    def end_one(self) -> None:
        self._loop.call_soon_threadsafe(self._backlog.end)
        self._loop.call_soon_threadsafe(self._backlog.leave)

    @contextlib.contextmanager
    def client(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            yield client

    @contextlib.contextmanager
    def having_much_to_do(self) -> Iterator[Self]:
        self.have_much_to_do()
        try:
            yield self
        finally:
            self.server.should_exit = True
            self.thread.join()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """One that has much to do, in which nobody goes on but for one that ends."""
    monkeypatch.setattr(backlog_module, "_LOOK_SECONDS", 60)
    with Service().having_much_to_do() as service:
        yield service


def ask(client: socket.socket, request: bytes) -> bytes:
    client.sendall(request)
    return client.recv(65_536)


def says_nothing(client: socket.socket) -> bool:
    client.settimeout(0.1)
    try:
        client.recv(1)
    except TimeoutError:
        client.settimeout(5)
        return True
    return False


def all_of(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65_536), b""))


def test_a_request_waits_for_its_turn(service: Service) -> None:
    with service.client() as first, service.client() as second:
        first.sendall(WHOLE)
        assert says_nothing(first)
        second.sendall(WHOLE)
        assert says_nothing(second)
        service.end_one()
        assert first.recv(65_536).endswith(b"\r\n\r\n12345")
        assert says_nothing(second)
        service.end_one()
        assert second.recv(65_536).endswith(b"\r\n\r\n12345")
    assert 0.19 < service.waited[0] < 2
    assert 0.19 < service.waited[1] < 2


def test_health_checks_do_not_wait(service: Service) -> None:
    with service.client() as client:
        assert ask(client, HEALTH).startswith(b"HTTP/1.1 200 OK")
        assert ask(client, HEALTH).startswith(b"HTTP/1.1 200 OK")


def test_it_may_come_in_parts(service: Service) -> None:
    body = bytes(1_000_000)
    with service.client() as client:
        for part in (HEAD[:9], HEAD[9:] % len(body), body[:5], body[5:]):
            threading.Thread(target=client.sendall, args=[part]).start()
            time.sleep(0.05)
        assert says_nothing(client)
        service.end_one()
        client.shutdown(socket.SHUT_WR)
        assert all_of(client).endswith(b"\r\n\r\n" + body)


def test_who_sends_no_more_still_gets_an_answer(service: Service) -> None:
    with service.client() as client:
        client.sendall(WHOLE)
        client.shutdown(socket.SHUT_WR)
        assert says_nothing(client)
        service.end_one()
        assert all_of(client).endswith(b"\r\n\r\n12345")


@pytest.mark.parametrize("other", [WHOLE, b"nonsense", b"\r\n"])
def test_who_has_gone_away_or_asks_nothing_takes_nobodys_turn(service: Service, other: bytes) -> None:
    with service.client() as client, service.client() as one:
        one.sendall(other)
        time.sleep(0.05)
        client.sendall(WHOLE)
        if other == WHOLE:
            # An end alone may be that of one who still wants the answer.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
        time.sleep(0.05)
        service.end_one()
        assert client.recv(65_536).endswith(b"\r\n\r\n12345")
        if other == b"nonsense":
            assert one.recv(65_536).startswith(b"HTTP/1.1 400 ")


def test_requests_that_came_together_are_answered_in_their_order(service: Service) -> None:
    with service.client() as client:
        client.sendall(WHOLE + HEAD % 3 + b"678")
        assert says_nothing(client)
        service.end_one()
        client.shutdown(socket.SHUT_WR)
        answers = all_of(client)
        assert answers.index(b"12345") < answers.index(b"678")


def test_what_is_too_much_is_refused_as_its_sender_asked(service: Service) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST - AT_ONCE):
            stack.enter_context(service.client()).sendall(WHOLE)
        wait_until(lambda: service.is_full)
        client, other, head = (stack.enter_context(service.client()) for _ in range(3))
        # Whole chains come together.
        client.sendall(WHOLE * 1500)
        client.shutdown(socket.SHUT_WR)
        assert all_of(client).count(b"HTTP/1.1 429 Too Many Requests\r\n") == 1500
        other.sendall(WHOLE.replace(b"Host: x", b"Connection: close"))
        refusal = all_of(other)
        assert b"\r\ndate: " in refusal
        assert b"\r\nconnection: close\r\n" in refusal
        assert json.loads(refusal.partition(b"\r\n\r\n")[2])["code"] == "overloaded"
        assert ask(head, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"\r\n\r\n")
        with service.client() as prober:
            assert ask(prober, HEALTH).startswith(b"HTTP/1.1 200 OK")


def test_what_has_waited_for_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Looked at for the first time when it is too late.
    monkeypatch.setattr(backlog_module, "_LOOK_SECONDS", 0.4)
    with Service(patience=0.2).having_much_to_do() as service, service.client() as client:
        client.sendall(WHOLE)
        assert client.recv(65_536).startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert service.waited == []


def test_what_waits_is_answered_before_the_end(service: Service) -> None:
    with service.client() as client:
        client.sendall(WHOLE)
        assert says_nothing(client)
        service.server.should_exit = True
        assert all_of(client).endswith(b"\r\n\r\n12345")
