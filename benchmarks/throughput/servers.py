"""Servers of the throughput benchmark: the product as users start it, and its peers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.startup import answers
from digit_core.artifact.versions import list_versions

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "throughput"
MODELS = CACHE / "models" / "digits"
_PEERS = CACHE / "peers"
_PORT = 18080


@dataclass(frozen=True)
class Server:
    """A program that serves POST /v1/predict once GET /readyz answers 200."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run the server inside of the block; yield its URL."""
        url = f"http://127.0.0.1:{_PORT}"
        if answers(f"{url}/readyz"):
            raise RuntimeError(f"another server listens at {url}; stop it, or it is measured instead")
        process = subprocess.Popen(
            self.command, cwd=ROOT, env={**os.environ, **self.environment}, stdout=subprocess.DEVNULL
        )
        try:
            _wait(f"{url}/readyz", process)
            yield url
        finally:
            process.terminate()
            process.wait()


def prepare() -> list[Server]:
    """Fit the article's model, install the peers, and return the servers, the product first."""
    if not MODELS.exists():
        _digits(
            "train", "--model", "perceptron", "--models", str(MODELS.parent), "--report", str(CACHE / "run")
        )
    if not _PEERS.exists():
        _install_peers()
    model, *_ = list_versions(MODELS).values()
    peers = str(HERE / "peers")
    uvicorn = [str(_PEERS / "bin" / "uvicorn"), "--app-dir", peers, "--port", str(_PORT), "--workers", "2"]
    granian = [str(_PEERS / "bin" / "granian"), "--interface", "wsgi", "--working-dir", peers]
    return [
        digits("Digits", Path(sys.executable)),
        Server(
            "FastAPI, TensorFlow in process",
            [*uvicorn, "--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "in_process:app"],
            {"MODEL": str(model.path), "TF_CPP_MIN_LOG_LEVEL": "3"},
        ),
        Server("bare Flask", [*granian, "--port", str(_PORT), "--workers", "2", "--no-ws", "floor:app"]),
    ]


def digits(name: str, python: Path) -> Server:
    """Return the server `digits up` of the checkout that is installed in this interpreter's environment."""
    command = [str(python.absolute()), "-m", "digit_client", "up", "--models", str(MODELS.parent)]
    ports = {"DIGITS_PORT": str(_PORT), "DIGITS_GRPC_PORT": "18500", "DIGITS_REST_PORT": "18501"}
    return Server(name, command, ports)


def _digits(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "digit_client", *arguments], check=True, cwd=ROOT)


def _install_peers() -> None:
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", str(_PEERS)], check=True)
    requirements = ["--requirements", str(HERE / "peers" / "requirements.txt")]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    python = ["--python", str(_PEERS / "bin" / "python")]
    subprocess.run([*uv, "pip", "install", "--quiet", *python, *constraints, *requirements], check=True)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        if answers(url):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} exited with status {process.returncode}")
