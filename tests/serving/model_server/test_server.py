"""Starting, failing to start, and stopping."""

import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.processes import DIGITS, accepts, free_port


def ended(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [*DIGITS, "model-server", f"--port={free_port()}", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (["--model_config_file=/missing"], "/missing; No such file or directory"),
        (["--model_base_path=relative"], "Expected model default to have an absolute path or URI"),
        (
            ["--model_base_path=/m", "--batching_parameters_file=/b"],
            "server_options.batching_parameters_file is set without setting",
        ),
    ],
)
def test_mistakes_end_the_start_in_a_sentence(flags: list[str], message: str) -> None:
    result = ended(*flags)
    assert result.returncode == 255
    assert "Failed to start server. Error: " in result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_does_not_load_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    result = ended(f"--model_base_path={tmp_path / 'm'}", "--max_num_load_retries=0")
    assert result.returncode == 255
    pattern = (
        r"1 servable\(s\) did not become available: \{\{\{name: default version: 1\} due to error: NOT_FOUND"
    )
    assert re.search(pattern, result.stderr)


def test_a_port_in_use_ends_the_start(server: Any, saved_models: Path) -> None:
    result = ended(f"--port={server.port}", f"--model_base_path={saved_models / 'half_plus_two'}")
    assert result.returncode == 255
    assert "Failed to BuildAndStart gRPC server" in result.stderr


def test_ports_stay_closed_until_there_is_a_model(serve: Any, constant: Any, tmp_path: Path) -> None:
    base = tmp_path / "model"
    server = serve(f"--model_base_path={base}", wait=False)
    server.wait_for(lambda: "Could not find base path" in server.log.read_text())
    assert not accepts(server.port)
    assert not accepts(server.rest_port)
    constant(base, 1, 1.0)
    server.wait_for(lambda: accepts(server.rest_port))
    assert server.stop() == 0


def test_a_server_without_a_model_stops_too(serve: Any, tmp_path: Path) -> None:
    server = serve(f"--model_base_path={tmp_path / 'none'}", wait=False)
    server.wait_for(lambda: "Could not find base path" in server.log.read_text())
    assert server.stop() == 0


def test_requests_under_way_are_answered_before_the_end(serve: Any, saved_models: Path) -> None:
    server = serve(f"--model_base_path={saved_models / 'tf2'}")
    body = {"signature_name": "slow", "inputs": [1.0]}
    answers: list[Any] = []
    x = np.array([1.0], np.float32)
    threads = [
        threading.Thread(
            target=lambda: answers.append(server.rest("/v1/models/default:predict", body).json())
        ),
        threading.Thread(target=lambda: answers.append(server.predict("default", "slow", x=x).outputs["y"])),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    server.process.terminate()
    for thread in threads:
        thread.join()
    assert server.process.wait(10) == 0
    assert {"outputs": [1.0]} in answers
    assert len(answers) == 2


def test_an_idle_server_stops_at_once(serve: Any, saved_models: Path) -> None:
    server = serve(f"--model_base_path={saved_models / 'half_plus_two'}")
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 1
    assert "Traceback" not in server.log.read_text()


def test_tensor_content_on_demand(serve: Any, constant: Any, tmp_path: Path) -> None:
    constant(tmp_path / "model", 1, 1.0)
    server = serve(f"--model_base_path={tmp_path / 'model'}", "--enable_serialization_as_tensor_content=true")
    output = server.predict("default", x=np.array([0.0], np.float32)).outputs["y"]
    assert np.frombuffer(output.tensor_content, np.float32).tolist() == [1.0]
    assert not output.float_val
    assert server.rest("/v1/models/default:predict", {"instances": [0.0]}).json() == {"predictions": [1.0]}
