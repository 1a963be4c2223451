"""Signals of which the kernel hands one to any thread, as it may."""

import os
import re
import signal
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


def threads(pid: int) -> set[int]:
    """All but the main one."""
    return {int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()} - {pid}


def handles_terminate(pid: int) -> bool:
    """Whether SIGTERM no longer just ends it."""
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def may_be_told(pid: int) -> bool:
    """Whether it handles SIGTERM, and has another thread to get it."""
    return handles_terminate(pid) and bool(threads(pid))


def terminate(pid: int) -> None:
    """Send SIGTERM by the oldest other thread, to which Linux gives it; younger ones may end before."""
    os.kill(min(threads(pid)), signal.SIGTERM)


def test_any_thread_of_the_model_server_may_be_told_to_stop(models: Path) -> None:
    port = free_port()
    flags = [f"--port={port}", "--model_name=digits", f"--model_base_path={models}"]
    with running("model-server", *flags) as process:
        wait_until(lambda: accepts(port), process)
        terminate(process.pid)
        assert process.wait(10) == 0


def test_any_thread_of_a_model_server_that_waits_for_its_model(tmp_path: Path) -> None:
    with running("model-server", f"--port={free_port()}", f"--model_base_path={tmp_path}") as process:
        wait_until(lambda: may_be_told(process.pid), process)
        terminate(process.pid)
        assert process.wait(10) == 0


def test_any_thread_of_a_worker_of_the_gateway(gateway: Popen[bytes]) -> None:
    worker, *_ = children(gateway.pid)
    # Another one may have answered already.
    wait_until(lambda: may_be_told(worker), gateway)
    terminate(worker)
    wait_until(lambda: worker not in children(gateway.pid), gateway, seconds=10)
    assert gateway.poll() is None
