"""The services as real processes on loopback."""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

import httpx

DIGITS = [sys.executable, "-m", "digit_client"]
READY_SECONDS = 60
# Below those that the kernel hands out: one of them that is free now may be gone before a server takes it.
_ports = cycle(range(20_000 + os.getpid() % 10_000, 32_000))


@contextmanager
def running(
    *arguments: str, environment: dict[str, str] | None = None, limits: dict[int, int] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`digits …` as a process that is stopped at the end; `limits` are those that resource.RLIMIT_… name."""
    process = subprocess.Popen(
        [*DIGITS, *arguments],
        env={**os.environ, **(environment or {})},
        preexec_fn=partial(limit, limits) if limits else None,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def limit(limits: dict[int, int]) -> None:
    """Set limits of this process, by the numbers that resource.RLIMIT_… name."""
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def children(pid: int) -> list[int]:
    """The processes that a process has started, the oldest first."""
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def free_port() -> int:
    """A port that nobody listens on, not given out before, and that no connection gets as its own end's."""
    return next(port for port in _ports if not accepts(port))


def wait_until(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes] | None = None,
    seconds: float = READY_SECONDS,
) -> None:
    """Wait until the condition holds; where a process is given, as long as it lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether the URL answers with 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def accepts(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
