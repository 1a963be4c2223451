"""Faults of the gateway and of its clients."""

import os
import resource
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from digit_core.images import to_png
from tests.e2e.operator.faults.conftest import CALLERS_TIMEOUT, GONE, HEARTBEAT, RECOVERY, Serve, Service
from tests.processes import children, wait_until

pytestmark = pytest.mark.e2e

# Build for processes with threads: in the other one, a thread of gRPC may see a half-read clock.
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def wait_until_replaced(victim: int, service: Service, seconds: float) -> None:
    """Wait until another worker has replaced `victim`, at most `seconds`."""
    pid = service.gateway.pid
    wait_until(lambda: len(children(pid)) == 2 and victim not in children(pid), seconds=seconds)
    service.wait_until_ready(RECOVERY)


def test_gateway_worker_that_hangs_is_replaced_and_clients_that_vanish_harm_no_others(serve: Serve) -> None:
    service = serve()
    with service.callers() as callers:
        # Nobody answers the requests of a worker that hangs.
        callers.max_seconds = CALLERS_TIMEOUT + 1
        victim, survivor = children(service.gateway.pid)
        os.kill(victim, signal.SIGSTOP)
        wait_until_replaced(victim, service, HEARTBEAT + RECOVERY)
        recovered = time.monotonic()
        time.sleep(1)
    assert survivor in children(service.gateway.pid)
    assert callers.statuses() <= {200, GONE}
    assert callers.statuses(since=recovered) == {200}
    request = _request(to_png(service.digits.one(7)))
    with service.callers(4) as callers:
        for length in (len(request), len(request) // 2, 20):
            for _ in range(100):
                with socket.create_connection(_address(service)) as connection:
                    connection.sendall(request[:length])
    assert callers.statuses() == {200}


def test_gateway_out_of_file_descriptors_recovers(serve: Serve) -> None:
    service = serve(limits={resource.RLIMIT_NOFILE: 100})
    with ExitStack() as stack, service.callers(4) as callers:
        for _ in range(400):
            stack.enter_context(socket.create_connection(_address(service)))
        time.sleep(1)
    # The callers' connections were open before and stay served.
    assert callers.statuses() == {200}
    service.wait_until_ready(RECOVERY)


@pytest.mark.skipif(FAKETIME is None, reason="needs faketime")
def test_gateway_clock_jump_is_harmless(serve: Serve, tmp_path: Path) -> None:
    _set_clock(tmp_path, "+0")
    clock = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # gunicorn keeps worker heartbeats (monotonic time) as the modification time of a file.
        "NO_FAKE_STAT": "1",
    }
    service = serve(environment=clock)
    with service.callers() as callers:
        for offset, seconds in (("+1d", 1), ("-400d", HEARTBEAT + 2)):
            _set_clock(tmp_path, offset)
            time.sleep(seconds)
            assert service.is_ready
    assert callers.statuses() == {200}


def _set_clock(folder: Path, offset: str) -> None:
    (folder / "new").write_text(offset)
    (folder / "new").rename(folder / "clock")


def _request(image: bytes) -> bytes:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    return head % len(image) + image


def _address(service: Service) -> tuple[str, int]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return host, int(port)
