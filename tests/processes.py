"""Services as processes on loopback."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from digit_core.artifact.models_folder import ModelsFolder

DIGITS = [sys.executable, "-m", "digit_client"]
ORIGINAL = os.environ.get("TENSORFLOW_MODEL_SERVER")
"""TensorFlow Serving's binary, for `make test-original`; None in other runs."""
MODEL_SERVER = [ORIGINAL] if ORIGINAL else [*DIGITS, "model-server"]
READY_SECONDS = 60
# Ports between those of Ray's clients, 23,000 to 24,000, and the kernel's ephemeral range: an outgoing
# connection could take an ephemeral port before the server does. Each worker of pytest-xdist has 2,000 ports
# of its own, and each run starts with another one.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_FIRST, _START = 24_100 + 2_000 * (_WORKER % 4), os.getpid() % 2_000
_ports: Iterator[int] = cycle([_FIRST + (_START + offset) % 2_000 for offset in range(2_000)])


@contextmanager
def running(
    *arguments: str,
    command: Sequence[str] = DIGITS,
    environment: dict[str, str] | None = None,
    limits: dict[int, int] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `digits …` as a process until the end of the block, under resource limits by RLIMIT_… number."""
    process = subprocess.Popen(
        [*command, *arguments],
        env={**os.environ, **(environment or {})},
        preexec_fn=partial(set_limits, limits) if limits else None,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def run(*command: str, **options: Any) -> str:
    """Run a command that has to succeed; return its output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    printed: str = done.stdout
    assert done.returncode == 0, f"{' '.join(command)}\n{printed}"
    return printed


def require_running(*tools: str) -> None:
    """Skip the test if one of `docker` and `podman` does not run here."""
    for tool in tools:
        if not shutil.which(tool) or subprocess.run([tool, "info"], capture_output=True).returncode:
            pytest.skip(f"{tool} does not run here")


def set_limits(limits: dict[int, int]) -> None:
    """Set resource limits of this process, by RLIMIT_… number."""
    for number, limit in limits.items():
        resource.setrlimit(number, (limit, limit))


def children(pid: int) -> list[int]:
    """Return the process IDs of the children of a process, oldest first."""
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def inheriting(variable: str, value: object) -> dict[int, list[bytes]]:
    """Return the arguments of the processes that began with this variable, by process ID, without zombies."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{variable}={value}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")
    return found


def free_port() -> int:
    """Return a port without a listener that this process has not returned before."""
    return next(port for port in _ports if not accepts(port))


@dataclass(frozen=True)
class Ports:
    """Free ports of `digits up`, and the variables that name them to it and to commands beside it."""

    gateway: int = field(default_factory=free_port)
    grpc: int = field(default_factory=free_port)
    rest: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """URL of the gateway."""
        return f"http://127.0.0.1:{self.gateway}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of `digits up`, and of commands that ask it."""
        return {
            "DIGITS_PORT": str(self.gateway),
            "DIGITS_GRPC_PORT": str(self.grpc),
            "DIGITS_REST_PORT": str(self.rest),
            "DIGITS_MODEL_SERVER": f"127.0.0.1:{self.grpc}",
            "DIGITS_URL": self.url,
        }

    @contextmanager
    def up(self, models: Path, **settings: str) -> Iterator[None]:
        """Run `digits up` with this models folder until the end of the block."""
        with running("up", "--models", str(models), environment=self.environment | settings) as process:
            wait_until(lambda: is_ready(self.url), process)
            # The default answers before the others are loaded.
            config = ModelsFolder(models).read_config()
            for name in config.base_paths:
                wait_until(partial(self._has_loaded, name, len(config.listed(name))), process)
            yield

    def _has_loaded(self, model: str, versions: int) -> bool:
        return (
            httpx.get(f"http://127.0.0.1:{self.rest}/v1/models/{model}").text.count("AVAILABLE") == versions
        )


@dataclass(frozen=True)
class GatewayProcess:
    """Gateway process that listens on loopback."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def gateway_process(
    model_server: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = DIGITS,
    limits: dict[int, int] | None = None,
    **settings: object,
) -> Iterator[GatewayProcess]:
    """Run a gateway process; yield it once it has its workers, and /livez answers.

    By default it has one worker, and its model server no labels. `settings` are fields of Settings, the
    others arguments of `running`.
    """
    port = free_port()
    settings = {"port": port, "model_server": model_server, "workers": 1, "default_label": ""} | settings
    variables = {f"DIGITS_{name.upper()}": str(value) for name, value in settings.items()}
    variables |= environment or {}
    with running("gateway", command=command, environment=variables, limits=limits) as process:
        gateway = GatewayProcess(port, process)
        workers = int(variables["DIGITS_WORKERS"])
        wait_until(lambda: len(children(process.pid)) == workers and answers(f"{gateway.url}/livez"), process)
        yield gateway


def wait_until(
    condition: Callable[[], bool],
    process: subprocess.Popen[Any] | None = None,
    seconds: float = READY_SECONDS,
) -> None:
    """Poll until the condition holds. Fail after `seconds`, or when the process has ended."""
    end, pause = time.monotonic() + seconds, 0.01
    while not condition():
        assert process is None or process.poll() is None, f"process ended with status {process.returncode}"
        assert time.monotonic() < end, f"condition does not hold after {seconds} s"
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def answers(url: str, timeout: float = 5.0) -> bool:
    """True if the URL answers with 200 within so many seconds."""
    try:
        return httpx.get(url, timeout=timeout).status_code == 200
    except httpx.HTTPError:
        return False


def is_ready(url: str) -> bool:
    """True if each worker of the gateway at this URL is ready: eight connections reach all of a few."""
    return all(answers(f"{url}/readyz") for _ in range(8))


def accepts(port: int, host: str = "127.0.0.1", timeout: float = 5.0) -> bool:
    """True if a server accepts connections on the port within so many seconds."""
    with socket.socket() as probe:
        probe.settimeout(timeout)
        return probe.connect_ex((host, port)) == 0
