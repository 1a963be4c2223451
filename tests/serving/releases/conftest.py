"""Fixtures: published versions, a model server of them in this process, and `digits models`."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from digit_core.artifact import models_folder
from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS as DIGITS_TASK
from digit_core.errors import ModelNotFoundError
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import Connection
from digit_serving.model_server import flags, grpc_service
from digit_serving.releases.cli import models
from digit_training.export import warmup_requests, write_warmup_requests
from tests.core.artifact.folders import require_variables
from tests.processes import free_port, wait_until
from tests.s3 import S3Server
from tests.serving.model_servers import running_core, save_classifier

CARD = {
    "created": "2026-11-25T03:18:10+00:00",
    "accuracy": 0.9712,
    "parameters": 135594,
    "canonical": False,
    "error": None,
    "data": {"name": "MNIST", "digits": 5000},
}


@dataclass(frozen=True)
class Service:
    """Models folder with digits' versions 1, 2, …, and the port of a model server, which need not run."""

    folder: ModelsFolder
    port: int

    @property
    def server(self) -> Connection:
        return Connection(f"127.0.0.1:{self.port}")

    @property
    def versions(self) -> Path:
        """Folder of digits' versions."""
        return self.folder.root / "digits"

    @property
    def config(self) -> ModelsConfig:
        return self.folder.read_config()

    def run(self, *arguments: object) -> Result:
        """Run `digits models …` in this process."""
        return CliRunner().invoke(models, [*map(str, arguments)], env=self.environment)

    def promote(self, version: int, *options: str) -> None:
        """Run `digits models promote`, which has to succeed."""
        result = self.run("promote", version, *options)
        assert result.exit_code == 0, result.stderr

    def copy(self, version: int) -> Path:
        """Copy version 1 by hand."""
        return Path(shutil.copytree(self.versions / "1", self.versions / str(version)))

    def publish(self, version: int) -> None:
        """Publish a copy of version 1."""
        self.copy(version)
        with self.folder.lock():
            self.folder.enter(self.config, self.folder.version("digits", version))

    def loaded(self) -> set[int]:
        """Versions that the server has available."""
        statuses = self.server.versions(ModelRef("digits"), timeout=5)
        return {status.version for status in statuses if status.is_available}

    def labelled(self, label: str = "stable") -> int | None:
        """Version that the server resolves the label to, or None."""
        with suppress(ModelNotFoundError):
            return self.server.resolve(ModelRef("digits", version_label=label), timeout=5)
        return None

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of `digits models`."""
        return {"DIGITS_MODELS": str(self.folder.root), "DIGITS_MODEL_SERVER": f"127.0.0.1:{self.port}"}


Serve = Callable[..., Service]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Filesystem of the empty bucket s3://bucket."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    filesystem = s3_server.filesystem()
    filesystem.mkdir("bucket")
    yield filesystem
    filesystem.rm("bucket", recursive=True)


@pytest.fixture(scope="session")
def saved_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModel with a model card."""
    folder = tmp_path_factory.mktemp("released") / "1"
    save_classifier(folder, DIGITS_TASK)
    images = np.zeros((1, 28, 28), np.uint8)
    write_warmup_requests(
        folder / "assets.extra" / "tf_serving_warmup_requests", warmup_requests(DIGITS_TASK, images)
    )
    (folder / "assets.extra" / "model.json").write_text(json.dumps(CARD))
    return folder


@pytest.fixture
def verified_by_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `digits models` verify versions by their files: TensorFlow takes a process of five seconds."""
    monkeypatch.setattr(models_folder, "ModelsFolder", partial(ModelsFolder, verify=require_variables))


@pytest.fixture
def published(saved_version: Path, tmp_path: Path) -> Service:
    """Three versions, of which the first is stable, without a server."""
    service = Service(ModelsFolder(tmp_path / "models", verify=lambda _: None), free_port())
    shutil.copytree(saved_version, service.versions / "1")
    for version in (2, 3):
        service.copy(version)
    with service.folder.lock():
        for version in (1, 2, 3):
            service.folder.enter(service.config, service.folder.version("digits", version))
    return service


@pytest.fixture
def serve(published: Service) -> Iterator[Serve]:
    """Start a model server in this process, with the flags of `digits up` and further ones."""
    with ExitStack() as stack:

        def start(*arguments: str, **options: object) -> Service:
            core = stack.enter_context(
                running_core(
                    f"--model_config_file={published.folder.config_path}",
                    "--allow_version_labels_for_unavailable_models=true",
                    "--max_num_load_retries=0",
                    **options,
                )
            )
            server = grpc_service.start(flags.parse([f"--port={published.port}", *arguments]), core)
            stack.callback(lambda: server.stop(None).wait())
            return published

        yield start


@pytest.fixture
def service(serve: Serve) -> Service:
    """Three versions and a model server, which has loaded them."""
    service = serve()
    wait_until(lambda: service.loaded() == {1, 2, 3}, seconds=20)
    return service
