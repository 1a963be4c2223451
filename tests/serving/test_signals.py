"""SIGTERM in any thread: the kernel may deliver a process's signal to any of its threads."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from tests.processes import accepts, answers, children, free_port, running, wait_until


@pytest.fixture
def gateway() -> Iterator[Popen[bytes]]:
    port = free_port()
    with running("gateway", environment={"DIGITS_PORT": str(port)}) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/livez"), process)
        yield process


@pytest.fixture
def model_server(models: Path) -> Iterator[Popen[bytes]]:
    port = free_port()
    flags = [f"--port={port}", "--model_name=digits", f"--model_base_path={models}"]
    with running("model-server", *flags) as process:
        wait_until(lambda: accepts(port), process)
        yield process


def threads(pid: int) -> set[int]:
    """Thread IDs of a process, without its main thread."""
    return {int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()} - {pid}


def has_thread_for_sigterm(pid: int) -> bool:
    """True if the process handles SIGTERM and has a thread beside the main one."""
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1) and bool(threads(pid))


def terminate(pid: int) -> None:
    """Send SIGTERM to the oldest thread beside the main one; younger threads may have ended."""
    os.kill(min(threads(pid)), signal.SIGTERM)


def test_sigterm_in_thread_of_starting_model_server_ends_it(tmp_path: Path) -> None:
    with running("model-server", f"--port={free_port()}", f"--model_base_path={tmp_path}") as process:
        wait_until(lambda: has_thread_for_sigterm(process.pid), process)
        terminate(process.pid)
        assert process.wait(10) == 0


@pytest.mark.e2e
def test_sigterm_in_thread_of_ready_model_server_ends_it(model_server: Popen[bytes]) -> None:
    terminate(model_server.pid)
    assert model_server.wait(10) == 0


@pytest.mark.e2e
def test_repeated_signals_end_the_model_server_once(model_server: Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        model_server.send_signal(number)
        time.sleep(0.005)
    assert model_server.wait(10) == 0


@pytest.mark.e2e
def test_sigterm_in_thread_of_gateway_worker_ends_only_the_worker(gateway: Popen[bytes]) -> None:
    worker, *_ = children(gateway.pid)
    # Another worker may have answered already.
    wait_until(lambda: has_thread_for_sigterm(worker), gateway)
    terminate(worker)
    wait_until(lambda: worker not in children(gateway.pid), gateway, seconds=10)
    assert gateway.poll() is None
