"""Published versions, a model server that reads their models.config, and `digits models` beside it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from digit_client import ModelNotFoundError
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.model_server import ModelServer
from digit_serving.releases.config import ConfigFile, prepared
from tests.processes import DIGITS, accepts, free_port, running, wait_until


@dataclass(frozen=True)
class Service:
    """Versions 1, 2, … in `models`, and the port of a model server, which need not run."""

    models: Path
    port: int

    @property
    def server(self) -> ModelServer:
        return ModelServer(f"127.0.0.1:{self.port}")

    @property
    def config(self) -> ConfigFile:
        return ConfigFile(self.models)

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """`digits models …`, under way."""
        environment = {
            **os.environ,
            "DIGITS_MODELS": str(self.models),
            "DIGITS_MODEL_SERVER": f"127.0.0.1:{self.port}",
        }
        command = [*DIGITS, "models", *map(str, arguments)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """`digits models …`, done."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def promote(self, version: int, *options: str) -> None:
        """`digits models promote`, which succeeds."""
        done = self.run("promote", version, *options)
        assert done.returncode == 0, done.stderr

    def add(self, version: int) -> Path:
        """Publishes a copy of version 1."""
        return Path(shutil.copytree(self.models / "1", self.models / str(version)))

    def loaded(self) -> set[int]:
        """The versions that the server answers with."""
        versions = self.server.versions(ModelRef(), timeout=5)
        return {status.version for status in versions if status.is_available}

    def labelled(self, label: str = "stable") -> int | None:
        """The version that the server answers with for the label."""
        with suppress(ModelNotFoundError):
            return self.server.resolve(ModelRef(label=label), timeout=5)
        return None


Serve = Callable[..., Service]


@pytest.fixture
def published(models: Path, tmp_path: Path) -> Service:
    """Three versions and no server."""
    service = Service(tmp_path / "digits", free_port())
    shutil.copytree(models / "1", service.models / "1")
    for version in (2, 3):
        service.add(version)
    prepared(service.models)
    return service


@pytest.fixture
def serve(published: Service) -> Iterator[Serve]:
    """Starts a model server as `digits up` does, with more flags."""
    with ExitStack() as stack:

        def start(*flags: str) -> Service:
            process = stack.enter_context(
                running(
                    "model-server",
                    f"--port={published.port}",
                    f"--model_config_file={published.config.path}",
                    "--allow_version_labels_for_unavailable_models=true",
                    *flags,
                )
            )
            wait_until(lambda: accepts(published.port), process)
            return published

        yield start


@pytest.fixture
def service(serve: Serve) -> Service:
    """Three versions and a server, which has loaded the newest."""
    return serve("--model_config_file_poll_wait_seconds=1", "--max_num_load_retries=0")
