"""Fixtures for many tests: digits, and services that serve the shipped networks."""

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from digit_core.artifact.models_folder import ModelsFolder
from digit_training.data import SAMPLE
from tests.processes import MODEL_SERVER, accepts, free_port, gateway_process, is_ready, running, wait_until

# jsonschema imports this optional package, which builds a grammar for seconds; no schema has its formats.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

# A script's background job begins with SIGINT ignored, and processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Derandomised examples: the same ones in every run, so that a failure belongs to the change.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


LONG_GROUPS = (
    "fits",
    "tests/serving/releases/test_promotion.py",
    "tests/serving/gateway/test_hostile.py",
    "tests/training/reader/test_pipeline.py",
    "tests/k8s/test_readme.py",
    "timing",
)
"""Groups that take longest: a worker that began one of them last would leave the others without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest groups to the front, where pytest-xdist begins."""
    ranks = {name: rank for rank, name in enumerate(LONG_GROUPS)}

    def rank(item: pytest.Item) -> int:
        marker = item.get_closest_marker("xdist_group")
        return ranks.get(marker.args[0] if marker else "", len(ranks))

    items.sort(key=rank)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Group each module's tests on one worker of pytest-xdist, so that module fixtures are set up once."""
    if not item.get_closest_marker("xdist_group"):
        item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file gets on disk."""
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))


@dataclass(frozen=True)
class Digits:
    """MNIST digits: images uint8 [n, 28, 28] and labels uint8 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def one(self, label: int) -> NDArray[np.uint8]:
        """Return the image of this digit that is nearest to its class mean: uint8 [28, 28]."""
        digit: NDArray[np.uint8] = self.typical(label, 1)[0]
        return digit

    def typical(self, label: int, count: int) -> NDArray[np.uint8]:
        """Return the images of this digit nearest to its class mean, nearest first: uint8 [count, 28, 28]."""
        images = self.images[self.labels == label]
        distances = ((images - images.mean(axis=0)) ** 2).sum(axis=(1, 2))
        nearest: NDArray[np.uint8] = images[distances.argsort()[:count]]
        return nearest


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Package sample of MNIST: 4,000 training digits, then 1,000 test digits."""
    with np.load(SAMPLE) as sample:
        return Digits(
            np.concatenate((sample["x_train"], sample["x_test"])),
            np.concatenate((sample["y_train"], sample["y_test"])),
        )


@pytest.fixture(scope="session")
def mnist_npz() -> Path:
    """File of the digits of `digits`, in the layout of Keras's mnist.npz."""
    return SAMPLE


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Models folder with the shipped networks, published once for all pytest-xdist workers.

    Verification, which imports TensorFlow once for each network, is left to the tests of publication.
    """
    from digit_training.pipeline import publish_shipped
    from digit_training.publication import Target
    from digit_training.quality_gate import QualityGate

    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent
    folder = ModelsFolder(root / "models", verify=lambda _: None)
    with (root / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        publish_shipped(Target(folder, QualityGate()))
    return folder.root / "digits"


@pytest.fixture(scope="session")
def model_server(models: Path) -> Iterator[str]:
    """gRPC address of a model server process with the shipped networks."""
    port = free_port()
    flags = [f"--port={port}", f"--model_config_file={models.parent / 'models.config'}"]
    flags.append("--allow_version_labels_for_unavailable_models=true")
    with running(*flags, command=MODEL_SERVER) as process:
        wait_until(lambda: accepts(port), process)
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def gateway(model_server: str) -> Iterator[str]:
    """URL of a gateway process in front of the model server."""
    with gateway_process(model_server, workers=2, default_label="stable") as gateway:
        wait_until(lambda: is_ready(gateway.url), gateway.process)
        yield gateway.url
