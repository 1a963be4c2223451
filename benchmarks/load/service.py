"""A gateway and a model server that can be killed, and are started again as a cluster would."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.startup import DIGITS, PORTS, URL, answers


@dataclass
class Service:
    """The processes; `models` is the folder of versions."""

    models: Path
    gateway: subprocess.Popen[bytes]
    model_server: subprocess.Popen[bytes]

    def kill_model_server(self) -> None:
        """Kill it and start another."""
        self.model_server.kill()
        self.model_server.wait()
        self.model_server = _start_model_server(self.models)

    def workers(self) -> list[int]:
        """The gateway's processes that answer, the oldest first."""
        tasks = Path(f"/proc/{self.gateway.pid}/task").glob("*/children")
        return sorted(int(child) for children in tasks for child in children.read_text().split())

    def kill_worker(self) -> None:
        """Kill the youngest; the gateway starts another."""
        os.kill(self.workers()[-1], signal.SIGKILL)


@contextmanager
def service(models: Path) -> Iterator[Service]:
    """Both, ready, until the end of the block."""
    settings = {**PORTS, "DIGITS_MODEL_SERVER": f"127.0.0.1:{PORTS['DIGITS_GRPC_PORT']}"}
    environment = {**os.environ, **settings, "DIGITS_LOG_LEVEL": "error"}
    gateway = subprocess.Popen([*DIGITS, "gateway"], env=environment)
    running = Service(models, gateway, _start_model_server(models))
    try:
        while not answers(f"{URL}/readyz"):
            time.sleep(0.1)
        yield running
    finally:
        for process in (running.gateway, running.model_server):
            process.terminate()
            process.wait()


def _start_model_server(models: Path) -> subprocess.Popen[bytes]:
    flags = [f"--port={PORTS['DIGITS_GRPC_PORT']}", "--rest_api_port=0", "--model_name=digits"]
    command = [*DIGITS, "model-server", *flags, f"--model_base_path={models}"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)
