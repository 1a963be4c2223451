"""SIGTERM in any thread: the kernel may deliver a process's signal to any of its threads."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.processes import accepts, children, free_port, gateway_process, running, wait_until


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
def test_repeated_signals_in_thread_end_the_ready_model_server_once(models: Path) -> None:
    port = free_port()
    flags = [f"--port={port}", "--model_name=digits", f"--model_base_path={models}"]
    with running("model-server", *flags) as process:
        wait_until(lambda: accepts(port), process)
        terminate(process.pid)
        for number in (signal.SIGINT, signal.SIGTERM):
            time.sleep(0.005)
            process.send_signal(number)
        assert process.wait(10) == 0


@pytest.mark.e2e
def test_sigterm_in_thread_of_gateway_worker_ends_only_the_worker() -> None:
    with gateway_process("127.0.0.1:1", workers=2) as gateway:
        worker, *_ = children(gateway.process.pid)
        # Another worker may have answered already.
        wait_until(lambda: has_thread_for_sigterm(worker), gateway.process)
        terminate(worker)
        wait_until(lambda: worker not in children(gateway.process.pid), gateway.process, seconds=10)
        assert gateway.process.poll() is None
