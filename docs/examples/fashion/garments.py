"""Fashion-MNIST, from Debian's dataset-fashion-mnist: small grey pictures of ten kinds of garment."""

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
"""What the labels 0 to 9 mean."""

Examples = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images [n, 28, 28], light on dark, and labels [n]."""


def to_learn() -> Examples:
    """60,000 of them."""
    return _read("train")


def to_test() -> Examples:
    """10,000 others."""
    return _read("t10k")


def _read(part: str) -> Examples:
    images = gzip.decompress((FOLDER / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FOLDER / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(
        labels, np.uint8, offset=8
    )
