"""Real parts that many tests share: digits, a small model of them, and the services that serve it."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from digit_training.data import SAMPLE
from tests.processes import DIGITS, accepts, answers, free_port, running, wait_until

# A change must not fail for what another left to chance: the same examples every time.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@dataclass(frozen=True)
class Digits:
    """MNIST digits: images uint8 [n, 28, 28] and labels uint8 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def one(self, label: int) -> NDArray[np.uint8]:
        """The most typical image of this digit: the nearest to their mean."""
        digit: NDArray[np.uint8] = self.typical(label, 1)[0]
        return digit

    def typical(self, label: int, count: int) -> NDArray[np.uint8]:
        """The images of this digit that are nearest to their mean, the nearest first."""
        images = self.images[self.labels == label]
        distances = ((images - images.mean(axis=0)) ** 2).sum(axis=(1, 2))
        nearest: NDArray[np.uint8] = images[distances.argsort()[:count]]
        return nearest


@pytest.fixture(scope="session")
def digits() -> Digits:
    """The package's sample of MNIST: its 4,000 training digits, then its 1,000 test digits."""
    with np.load(SAMPLE) as sample:
        return Digits(
            np.concatenate((sample["x_train"], sample["x_test"])),
            np.concatenate((sample["y_train"], sample["y_test"])),
        )


@pytest.fixture(scope="session")
def mnist_npz() -> Path:
    """The same digits as a file in Keras's layout."""
    return SAMPLE


@pytest.fixture(scope="session")
def models(mnist_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of versions with one small model in it, as `digits train` makes it."""
    folder = tmp_path_factory.mktemp("models") / "digits"
    command = [
        *DIGITS,
        "train",
        "--data",
        mnist_npz,
        "--output",
        folder,
        "--report",
        folder.parent / "report",
    ]
    subprocess.run([*map(str, command), "--epochs", "4"], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def model_server(models: Path) -> Iterator[str]:
    """The gRPC address of a model server with that model."""
    port = free_port()
    flags = [f"--port={port}", "--model_name=digits", f"--model_base_path={models}"]
    with running("model-server", *flags) as process:
        wait_until(lambda: accepts(port), process)
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def gateway(model_server: str) -> Iterator[str]:
    """The URL of a gateway before that model server."""
    port = free_port()
    environment = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": model_server}
    with running("gateway", environment=environment) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), process)
        yield url
