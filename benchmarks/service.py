"""Gateway and model server in separate processes, which can be killed and are restarted."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.startup import DIGITS, PORTS, URL, answers, children


@dataclass
class Service:
    """Running processes. `models` is the folder of versions, `flags` are extra flags of the model server."""

    models: Path
    flags: Sequence[str]
    gateway: subprocess.Popen[bytes]
    model_server: subprocess.Popen[bytes]

    def kill_model_server(self) -> None:
        """Kill the model server and start another one, as an orchestrator would."""
        self.model_server.kill()
        self.model_server.wait()
        self.model_server = _start_model_server(self.models, self.flags)

    def workers(self) -> list[int]:
        """Return the process IDs of the gateway's workers, oldest first."""
        return children(self.gateway.pid)

    def kill_worker(self) -> None:
        """Kill the youngest worker; the gateway starts another one."""
        os.kill(self.workers()[-1], signal.SIGKILL)


@contextmanager
def service(
    models: Path, flags: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Start both processes, wait until they are ready, and stop them at the end of the block.

    `settings` are environment variables of the gateway.
    """
    addresses = {
        **PORTS,
        "DIGITS_MODEL_SERVER": f"127.0.0.1:{PORTS['DIGITS_GRPC_PORT']}",
        "DIGITS_DEFAULT_LABEL": "",
    }
    gateway = subprocess.Popen(
        [*DIGITS, "gateway"], env={**os.environ, **addresses, **(settings or {})}, stderr=subprocess.DEVNULL
    )
    running = Service(models, flags, gateway, _start_model_server(models, flags))
    try:
        # Eight connections reach every worker.
        while not all(answers(f"{URL}/readyz") for _ in range(8)):
            time.sleep(0.1)
        yield running
    finally:
        for process in (running.gateway, running.model_server):
            process.terminate()
            process.wait()


def _start_model_server(models: Path, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [*DIGITS, "model-server", f"--port={PORTS['DIGITS_GRPC_PORT']}", "--model_name=digits"]
    command.append(f"--model_base_path={models.resolve()}")
    return subprocess.Popen([*command, *flags], stderr=subprocess.DEVNULL)
