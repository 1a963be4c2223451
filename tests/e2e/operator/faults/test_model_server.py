"""Faults of the model server, and the time to recover from them."""

import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from tests.e2e.operator.faults.conftest import DEADLINE, RECOVERY, Serve
from tests.processes import accepts, set_limits, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.original]


def test_model_server_other_program_or_none_at_address_is_refused_and_found_later(serve: Serve) -> None:
    service = serve(model_server=False)
    assert not service.is_ready
    started = time.monotonic()
    answer = service.ask()
    assert time.monotonic() - started < 1
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
    assert answer.headers["retry-after"] == "1"
    for greeting in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", bytes(range(256)) * 64):
        with _foreign_server(service.grpc_port, greeting):
            started = time.monotonic()
            answer = service.ask()
            assert time.monotonic() - started < DEADLINE + 1
            assert answer.status_code in {502, 503}
            assert not service.is_ready
    service.start_model_server()
    wait_until(lambda: accepts(service.grpc_port), service.model_server)
    service.wait_until_ready(RECOVERY)
    assert service.ask().status_code == 200


def test_model_server_killed_slow_or_hanging_delays_or_refuses_and_recovers(serve: Serve) -> None:
    service = serve()
    with service.callers() as callers:
        service.kill_model_server()
        wait_until(lambda: not service.is_ready, seconds=RECOVERY)
        service.start_model_server()
        wait_until(lambda: accepts(service.grpc_port), service.model_server)
        service.wait_until_ready(RECOVERY)
        recovered = time.monotonic()
        time.sleep(1)
        assert callers.statuses(since=recovered) == {200}
    assert callers.statuses() == {200, 503}
    with service.callers() as callers:
        for _ in range(6):
            service.signal_model_server(signal.SIGSTOP)
            time.sleep(0.5)
            service.signal_model_server(signal.SIGCONT)
            time.sleep(0.02)
    assert callers.statuses() == {200}
    assert max(outcome.seconds for outcome in callers.outcomes) > 0.4
    with service.callers() as callers:
        service.signal_model_server(signal.SIGSTOP)
        wait_until(lambda: not service.is_ready, seconds=RECOVERY)
        time.sleep(DEADLINE)
        circuit_opened = time.monotonic()
        time.sleep(1)
        # The circuit breaker refuses requests at once, except for those that ask whether the server is back.
        durations = [outcome.seconds for outcome in callers.outcomes if outcome.started > circuit_opened]
        assert sorted(durations)[len(durations) * 9 // 10] < 0.5
        service.signal_model_server(signal.SIGCONT)
        service.wait_until_ready(RECOVERY)
        recovered = time.monotonic()
        time.sleep(1)
        assert callers.statuses(since=recovered) == {200}
    assert callers.statuses() <= {200, 503, 504}


def test_model_server_out_of_file_descriptors_recovers(serve: Serve) -> None:
    service = serve(model_server=False)
    service.start_model_server(preexec_fn=partial(set_limits, {resource.RLIMIT_NOFILE: 256}))
    service.wait_until_ready()
    with service.callers() as callers, _many_connections(service.grpc_port, 400):
        time.sleep(2)
    # The gateway's connections were open before.
    assert callers.statuses() == {200}
    time.sleep(RECOVERY)
    assert service.is_ready
    assert service.ask().status_code == 200


@contextmanager
def _many_connections(port: int, count: int) -> Iterator[None]:
    connections = []
    try:
        for _ in range(count):
            connection = socket.socket()
            connection.settimeout(0.2)
            connections.append(connection)
            with suppress(OSError):
                connection.connect(("127.0.0.1", port))
        yield
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def _foreign_server(port: int, greeting: bytes) -> Iterator[None]:
    """Run a server that sends `greeting` to each connection and reads nothing."""
    stop, connections = threading.Event(), []

    def accept(listener: Any) -> None:
        while not stop.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                connections.append(connection)
                connection.sendall(greeting)

    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            for connection in connections:
                connection.close()
