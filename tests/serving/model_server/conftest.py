"""SavedModels, and model servers that serve them: in this process or as a process."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from werkzeug.test import Client

from digit_serving.model_server import flags, grpc_service
from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.rest import RestApi
from tests.processes import MODEL_SERVER, accepts, free_port, wait_until
from tests.serving.model_servers import (
    COLORS,
    model_config,
    predict_request,
    running_core,
    save_classifier,
    save_constant,
    save_half_plus,
    save_perceptron,
)

VERSIONS_POLICY = 'model_version_policy { all {} } version_labels { key: "stable" value: 1 }'


@pytest.fixture(scope="session")
def saved_constant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """Return the folder of a SavedModel that answers `y` = `value`."""

    @cache
    def save(value: float) -> Path:
        folder = tmp_path_factory.mktemp("constant")
        save_constant(folder, value)
        return folder

    return save


@pytest.fixture(scope="session")
def saved_models(saved_constant: Callable[[float], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of models: half_plus_two and half_plus_three of TensorFlow 1, the others of TensorFlow 2."""
    folder = tmp_path_factory.mktemp("saved_models")
    save_half_plus(folder / "half_plus_two" / "00000123", 2.0)
    save_half_plus(folder / "half_plus_three" / "00000123", 3.0)
    save_perceptron(folder / "tf2" / "1")
    save_classifier(folder / "colors" / "1", COLORS)
    for number in (1, 2):
        shutil.copytree(saved_constant(float(number)), folder / "versions" / str(number))
    return folder


@pytest.fixture(scope="session")
def config_file(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models.config of all saved models; `versions` serves both of its versions, and 1 is stable."""
    path = tmp_path_factory.mktemp("config") / "models.config"
    entries = [
        model_config(base.name, base, VERSIONS_POLICY if base.name == "versions" else "")
        for base in sorted(saved_models.iterdir())
    ]
    path.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    return path


@pytest.fixture(scope="session")
def core(config_file: Path) -> Iterator[ServerCore]:
    """Core of all models in this process. Tests must not reconfigure it."""
    labels = "--allow_version_labels_for_unavailable_models=true"
    with running_core(
        f"--model_config_file={config_file}", labels, model_config_file_poll_wait_seconds=0
    ) as core:
        yield core


@pytest.fixture(scope="session")
def http(core: ServerCore) -> Client:
    """Client of the core's REST API, without a socket."""
    options = flags.parse(["--rest_api_enable_cors_support"])
    return Client(RestApi(options, core, "/metrics"))


ServeGrpc = Callable[..., AbstractContextManager[int]]


@pytest.fixture(scope="session")
def serve_grpc(core: ServerCore) -> ServeGrpc:
    """Start a gRPC server of the core with these flags, on the port it returns, until the end of a block."""

    @contextmanager
    def serve(*arguments: str) -> Iterator[int]:
        port = free_port()
        server = grpc_service.start(flags.parse([f"--port={port}", *arguments]), core)
        try:
            yield port
        finally:
            server.stop(None).wait()

    return serve


@dataclass
class ServerProcess:
    """Model server as a process."""

    process: subprocess.Popen[bytes]
    port: int
    rest_port: int
    log: Path
    channel: grpc.Channel

    @property
    def prediction(self) -> Any:
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    @property
    def models(self) -> Any:
        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def health(self) -> Any:
        return health_pb2_grpc.HealthStub(self.channel)

    def predict(self, model: str, signature: str = "", **inputs: Any) -> Any:
        return self.prediction.Predict(predict_request(model, signature, **inputs), 10)

    def rest(self, path: str, body: str = "") -> httpx.Response:
        """GET the path, or POST the body."""
        url = f"http://127.0.0.1:{self.rest_port}{path}"
        return httpx.post(url, content=body) if body else httpx.get(url)

    def states(self, model: str) -> dict[str, str]:
        """State of each version."""
        status = self.rest(f"/v1/models/{model}").json().get("model_version_status", [])
        return {entry["version"]: entry["state"] for entry in status}

    def metric(self, name: str, *labels: str) -> float:
        """Sum of the metric's values under these labels, such as `status="fail"`."""
        found = re.findall(rf"^:tensorflow:{name}\{{(.*)\}} (\S+)$", self.rest("/metrics").text, re.MULTILINE)
        return sum(float(value) for given, value in found if all(label in given for label in labels))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, self.process)

    def stop(self) -> int:
        self.channel.close()
        self.process.terminate()
        return self.process.wait(20)


Serve = Callable[..., ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a model server process for one test."""
    with ExitStack() as stack:
        yield lambda *flags, wait=True: _serve(stack, tmp_path, flags, wait)


@pytest.fixture(scope="session")
def server(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Model server process of all models. Tests must not reconfigure it."""
    folder = tmp_path_factory.mktemp("server")
    flags = (
        f"--model_config_file={config_file}",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_grpc_healthcheck_service",
        f"--grpc_socket_path={folder / 'grpc.sock'}",
    )
    with ExitStack() as stack:
        yield _serve(stack, folder, flags, wait=True)


def _serve(stack: ExitStack, folder: Path, flags: tuple[str, ...], wait: bool) -> ServerProcess:
    port, rest_port = free_port(), free_port()
    log = folder / f"{port}.log"
    monitoring = folder / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    transports = (f"--port={port}", f"--rest_api_port={rest_port}", f"--monitoring_config_file={monitoring}")
    command = [*MODEL_SERVER, *transports, *flags]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    server = ServerProcess(process, port, rest_port, log, grpc.insecure_channel(f"127.0.0.1:{port}"))
    stack.callback(server.stop)
    if wait:
        server.wait_for(lambda: accepts(rest_port))
    return server


@pytest.fixture
def publish(saved_constant: Callable[[float], Path], tmp_path: Path) -> Callable[..., Path]:
    """Publish a version that answers `y` = `value`: copied beside the base path, then renamed into it."""

    def copy(base: Path, version: int, value: float) -> Path:
        base.mkdir(exist_ok=True)
        new = shutil.copytree(saved_constant(value), tmp_path / "new")
        return new.rename(base / str(version))

    return copy
