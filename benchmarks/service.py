"""Servers in processes of their own, with their CPU time and memory. Needs Linux."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

DIGITS = [sys.executable, "-m", "digit_client"]
PORTS = {"DIGITS_PORT": "18080", "DIGITS_GRPC_PORT": "18500", "DIGITS_REST_PORT": "18501"}
URL = f"http://127.0.0.1:{PORTS['DIGITS_PORT']}"


@dataclass(frozen=True)
class Server:
    """A program that serves POST /v1/predict at URL once GET /readyz answers 200."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[int]:
        """Run the server inside of the block; yield its process ID."""
        if _is_ready():
            raise RuntimeError(f"another server listens at {URL}; stop it, or it is measured instead")
        process = subprocess.Popen(
            self.command, env={**os.environ, **self.environment}, stdout=subprocess.DEVNULL
        )
        try:
            while not _is_ready():
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args!r} exited with status {process.returncode}")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def digits(name: str = "Digits", python: str = sys.executable, models: Path = Path("models")) -> Server:
    """Return the server `digits up` of the checkout that is installed in this interpreter's environment."""
    return Server(name, [python, "-m", "digit_client", "up", "--models", str(models)], PORTS)


def article_models() -> Path:
    """Return the models folder of the article's model, which is fitted unless it is there."""
    models = Path(".cache/throughput/models")
    if not models.exists():
        options = ["--model", "perceptron", "--models", str(models), "--report", f"{models}/report"]
        subprocess.run([*DIGITS, "train", *options], check=True)
    return models


def gateway_and_model_server(up: int) -> tuple[int, int]:
    """Return the process IDs of both services of `digits up`."""
    services = children(up)
    (model_server,) = (
        pid for pid in services if b"model-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    (gateway,) = set(services) - {model_server}
    return gateway, model_server


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) for child in children(pid))


def memory(pid: int) -> float:
    """Return the megabytes (PSS) of a process and its children; shared pages count once."""
    rollups = (Path(f"/proc/{process}/smaps_rollup").read_text() for process in [pid, *children(pid)])
    lines = (line for rollup in rollups for line in rollup.splitlines() if line.startswith("Pss:"))
    return sum(int(line.split()[1]) for line in lines) / 1024


def children(pid: int) -> list[int]:
    """Return the IDs of a process's child processes."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def print_row(name: str, *figures: object) -> None:
    """Print a row of a table."""
    texts = (f"{figure:,.3f}" if isinstance(figure, float) else str(figure) for figure in figures)
    sys.stdout.write(f"{name:36}" + "".join(f"{text:>16}" for text in texts) + "\n")
    sys.stdout.flush()


def _is_ready() -> bool:
    try:
        return httpx.get(f"{URL}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
