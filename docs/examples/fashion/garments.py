"""Fashion-MNIST from Debian's package dataset-fashion-mnist: grey 28×28 pictures of ten kinds of garment."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path("/usr/share/datasets/fashion-mnist")

NAMES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""Class names of the labels 0 to 9."""

Examples = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images uint8 [n, 28, 28], light on dark, and labels uint8 [n]."""


def training_set() -> Examples:
    """Return the 60,000 training examples."""
    return _read("train")


def test_set() -> Examples:
    """Return the 10,000 test examples."""
    return _read("t10k")


def _read(part: str) -> Examples:
    images = gzip.decompress((FOLDER / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FOLDER / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(
        labels, np.uint8, offset=8
    )
