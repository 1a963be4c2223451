"""Digits in the forms that training reads, and a small model fitted to some."""

import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training import data
from digit_training.data import Dataset
from digit_training.fit import Fit, fit
from digit_training.recipes import RECIPES
from tests.conftest import Digits


@pytest.fixture(scope="session")
def dataset(mnist_npz: Path) -> Dataset:
    """4,000 digits to learn from and 1,000 to be tested on."""
    return data.read(mnist_npz).verified("here")


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """All of MNIST, or where it cannot be had what the product then takes."""
    path = os.environ.get("DIGITS_MNIST")
    return data.load(Path(path) if path else None)


@pytest.fixture(scope="session")
def fitted(dataset: Dataset) -> Fit:
    """A perceptron after three quick epochs."""
    recipe = replace(RECIPES["perceptron"], epochs=3, learning_rate=0.5)
    return fit(recipe, dataset.train, seed=0)


@pytest.fixture
def idx_folder(digits: Digits, tmp_path: Path) -> Path:
    """The first 300 digits as IDX files: 200 to learn from, gzipped, and 100 to be tested on."""
    images, labels = digits.images, digits.labels
    for name, array in (
        ("train-images-idx3-ubyte.gz", images[:200]),
        ("train-labels-idx1-ubyte.gz", labels[:200]),
        ("t10k-images-idx3-ubyte", images[200:300]),
        ("t10k-labels-idx1-ubyte", labels[200:300]),
    ):
        content = idx(array)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return tmp_path


@pytest.fixture
def as_idx() -> Callable[[NDArray[np.uint8]], bytes]:
    """Turns an array of bytes into the content of an IDX file."""
    return idx


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
