"""Processes that serve."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.processes import children, wait_until

WORK = """
import signal, socket, time
from digit_serving.gateway.workers import Workers

def steady(port, beat):
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    while not told:
        beat()
        time.sleep(0.05)

def broken(port, beat):
    if port is ports[1]:
        raise SystemExit("no such thing")
    steady(port, beat)

ports = [(socket.create_server(("127.0.0.1", 0)),) for _ in range(2)]
Workers(ports, {}).run()
"""


@contextmanager
def at(work: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", WORK.replace("{}", work)], stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_one_that_ends_or_hangs_is_replaced(end: signal.Signals) -> None:
    with at("steady") as process:
        wait_until(lambda: len(children(process.pid)) == 2, process)
        one, other = children(process.pid)
        # Who ends before it has begun is not replaced.
        time.sleep(0.5)
        os.kill(one, end)
        wait_until(lambda: one not in (now := children(process.pid)) and len(now) == 2, process)
        assert other in children(process.pid)


def test_where_one_cannot_begin_all_end() -> None:
    with at("broken") as process:
        assert process.wait(20) == 1
        assert process.stderr
        told = process.stderr.read().decode()
        assert "no such thing" in told
        assert "a worker process ended before it served anybody" in told


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_all_end_when_told(told: signal.Signals) -> None:
    with at("steady") as process:
        wait_until(lambda: len(children(process.pid)) == 2, process)
        process.send_signal(told)
        assert process.wait(5) == 0
