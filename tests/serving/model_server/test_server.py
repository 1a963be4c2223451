"""Process of the model server: start, sockets and graceful shutdown."""

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.processes import MODEL_SERVER, accepts, free_port
from tests.serving.model_server.conftest import Serve, ServerProcess


@pytest.mark.xdist_group("timing")
def test_server_opens_ports_with_model_and_drains_at_sigterm(
    serve: Serve, saved_models: Path, tmp_path: Path
) -> None:
    base = tmp_path / "model"
    server = serve(f"--model_base_path={base}", wait=False)
    server.wait_for(lambda: "Could not find base path" in server.log.read_text())
    assert not accepts(server.port)
    assert not accepts(server.rest_port)
    base.symlink_to(saved_models / "tf2")
    server.wait_for(lambda: accepts(server.rest_port))

    body = {"signature_name": "wait", "inputs": [1.0]}
    answers: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(server.rest("/v1/models/default:predict", body).json()["outputs"])
        ),
        threading.Thread(
            target=lambda: answers.append(
                list(server.predict("default", "wait", seconds=[1.0]).outputs["y"].float_val)
            )
        ),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    server.process.terminate()
    for thread in threads:
        thread.join()
    assert server.process.wait(10) == 0
    assert answers == [[1.0], [1.0]]
    assert "Traceback" not in server.log.read_text()


def output_of_failed_start(*flags: str) -> str:
    """Return the output of a server that fails to start."""
    command = [*MODEL_SERVER, f"--port={free_port()}", *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 255
    assert "Failed to start server. Error: " in result.stdout
    assert "Traceback" not in result.stderr
    return result.stdout


@pytest.mark.e2e
@pytest.mark.original
def test_start_with_relative_base_path_exits_with_255() -> None:
    output = output_of_failed_start("--model_base_path=relative")
    assert "Expected model default to have an absolute path or URI" in output


@pytest.mark.e2e
@pytest.mark.original
def test_start_with_broken_model_exits_with_255(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    output = output_of_failed_start(f"--model_base_path={tmp_path / 'm'}", "--max_num_load_retries=0")
    assert "1 servable(s) did not become available: " in output
    assert "{name: default version: 1} due to error: " in output


@pytest.mark.e2e
def test_start_on_port_in_use_exits_with_255(server: ServerProcess, saved_models: Path) -> None:
    base = saved_models / "half_plus_two"
    output = output_of_failed_start(f"--port={server.port}", f"--model_base_path={base}")
    assert "The gRPC server can't listen on" in output


@pytest.mark.e2e
@pytest.mark.xdist_group("timing")
def test_sigterm_idle_server_ends_within_a_second(serve: Serve, saved_models: Path) -> None:
    server = serve(f"--model_base_path={saved_models / 'half_plus_two'}")
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 1
    assert "Traceback" not in server.log.read_text()


@pytest.mark.e2e
def test_sigterm_server_waiting_for_model_ends(serve: Serve, tmp_path: Path) -> None:
    server = serve(f"--model_base_path={tmp_path / 'none'}", wait=False)
    server.wait_for(lambda: "Could not find base path" in server.log.read_text())
    assert server.stop() == 0
