"""Digits to learn from: four arrays, verified, and what is known of their origin."""

import contextlib
import gzip
import hashlib
import io
import math
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_training.errors import DataError

# MD5 of MNIST's four files in their IDX form, uncompressed.
CANONICAL = {
    "train images": "6bbc9ace898e44ae57da46a324031adb",
    "train labels": "a25bea736e30d166cdddb491f175f624",
    "test images": "2646ac647ad5339dbf082846283269ea",
    "test labels": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True)
class Examples:
    """Images uint8 [n, 28, 28], light ink on dark, and their labels uint8 [n], 0..9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> "Examples":
        return Examples(self.images[rows], self.labels[rows])

    def __add__(self, other: "Examples") -> "Examples":
        return Examples(
            np.concatenate((self.images, other.images)), np.concatenate((self.labels, other.labels))
        )

    @property
    def pixels(self) -> NDArray[np.float32]:
        """What a model reads: float32 [n, 784], 0..1."""
        return self.images.reshape(-1, 784).astype(np.float32) / np.float32(255)


@dataclass(frozen=True)
class Dataset:
    """A training and a test set that share no example.

    `source` says where they were read; `offline` that they stand in for MNIST, which could not be had;
    `md5` holds the checksums of the IDX form, by the names in `CANONICAL`.
    """

    train: Examples
    test: Examples
    source: str
    offline: bool
    md5: dict[str, str]

    @property
    def canonical(self) -> bool:
        return self.md5 == CANONICAL


@dataclass(frozen=True)
class Part:
    """One array as it was read, and the words that lead a user to it: a file, or a file and a key."""

    name: str
    values: NDArray[Any]


@dataclass(frozen=True)
class Parts:
    """The four arrays of a data set as they were read, not yet trusted."""

    train_images: Part
    train_labels: Part
    test_images: Part
    test_labels: Part

    def verified(self, source: str, offline: bool = False) -> Dataset:
        """Raises DataError where shapes, types, ranges or checksums contradict what the files claim to be."""
        train = _examples(self.train_images, self.train_labels)
        test = _examples(self.test_images, self.test_labels)
        arrays = (train.images, train.labels, test.images, test.labels)
        md5 = dict(zip(CANONICAL, map(idx_md5, arrays), strict=True))
        self._reject_mislabelled(md5)
        return Dataset(train, test, source, offline, md5)

    def _reject_mislabelled(self, md5: dict[str, str]) -> None:
        parts = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        known = {checksum: role for role, checksum in CANONICAL.items()}
        for (role, checksum), part in zip(md5.items(), parts, strict=True):
            if known.get(checksum, role) != role:
                raise DataError(f"{part.name} holds MNIST's {known[checksum]}, not its {role}")
        for half, labels in (("train", self.train_labels), ("test", self.test_labels)):
            images, answers = f"{half} images", f"{half} labels"
            if md5[images] == CANONICAL[images] and md5[answers] != CANONICAL[answers]:
                raise DataError(
                    f"{labels.name} does not label MNIST's {images}: its MD5 is {md5[answers]}, "
                    f"not {CANONICAL[answers]}"
                )


def idx_md5(array: NDArray[np.uint8]) -> str:
    """MD5 of the array as an IDX file: magic number, sizes, bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    return hashlib.md5(header + array.tobytes(), usedforsecurity=False).hexdigest()


def _examples(images: Part, labels: Part) -> Examples:
    _check_images(images)
    _check_labels(labels)
    if len(images.values) != len(labels.values):
        raise DataError(
            f"{labels.name} holds {len(labels.values):,} labels for the {len(images.values):,} images "
            f"of {images.name}"
        )
    return Examples(np.ascontiguousarray(images.values), labels.values.astype(np.uint8))


def _check_images(images: Part) -> None:
    values = images.values
    if values.dtype != np.uint8:
        raise DataError(f"{images.name} is of type {values.dtype}, not uint8 (0..255)")
    if values.ndim != 3 or values.shape[1:] != (28, 28) or not len(values):
        raise DataError(f"{images.name} has shape {list(values.shape)}, not [n, 28, 28]")
    if values.max() < 128:
        raise DataError(f"{images.name} has no pixel above {values.max()}: pixels run from 0 to 255")
    if values.mean() > 127:
        raise DataError(f"{images.name} is dark ink on light: MNIST's digits are light ink on dark")


def _check_labels(labels: Part) -> None:
    values = labels.values
    if values.ndim != 1 or not len(values):
        raise DataError(f"{labels.name} has shape {list(values.shape)}, not [n]")
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{labels.name} is of type {values.dtype}, not whole numbers")
    if values.min() < 0 or values.max() > 9:
        raise DataError(f"{labels.name} runs from {values.min()} to {values.max()}, not from 0 to 9")


UNSIGNED_BYTES = 0x08
GZIP_MAGIC = b"\x1f\x8b"
SAMPLE = Path(__file__).parent / "sample" / "mnist_sample.npz"
"""5,000 MNIST digits for machines without internet. The README beside the file states origin and licence."""


def read(path: Path) -> Parts:
    """Reads an `.npz` file or a folder of IDX files. Raises DataError."""
    if path.is_dir():
        return read_idx_folder(path)
    if path.is_file():
        return read_npz(path)
    raise DataError(f"{path} does not exist")


def read_npz(path: Path) -> Parts:
    """Reads `x_train`, `y_train`, `x_test` and `y_test`. Raises DataError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays)
            if missing:
                raise DataError(f"{path} lacks {', '.join(sorted(missing))}: it is not Keras's mnist.npz")
            return Parts(
                *(Part(f"{path}: {key}", arrays[key]) for key in ("x_train", "y_train", "x_test", "y_test"))
            )
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or no .npz file: {error}") from error


def read_idx_folder(folder: Path) -> Parts:
    """Reads the four files that MNIST is published as, gzipped or not. Raises DataError."""
    return Parts(
        _read_idx(_find(folder, "train-images", 3), 3),
        _read_idx(_find(folder, "train-labels", 1), 1),
        _read_idx(_find(folder, "t10k-images", 3), 3),
        _read_idx(_find(folder, "t10k-labels", 1), 1),
    )


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    # Some mirrors unpack them with a dot where the original names have a dash.
    names = [f"{stem}{mark}idx{dimensions}-ubyte{suffix}" for suffix in ("", ".gz") for mark in ("-", ".")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no {names[0]}, gzipped or not")


def _read_idx(path: Path, dimensions: int) -> Part:
    content = _unzipped(path)
    header_size = 4 + 4 * dimensions
    if len(content) < header_size:
        raise DataError(f"{path} is truncated: {len(content)} bytes are less than its header")
    zeros, kind, actual_dimensions = struct.unpack(">HBB", content[:4])
    if (zeros, kind, actual_dimensions) != (0, UNSIGNED_BYTES, dimensions):
        raise DataError(
            f"{path} begins with {content[:4].hex()}, not 000008{dimensions:02x}: "
            f"it is no IDX file of bytes in {dimensions} dimension{'s'[: dimensions - 1]}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header_size])
    expected, actual = math.prod(shape), len(content) - header_size
    if actual != expected:
        wrong = "is truncated" if actual < expected else "is too long"
        raise DataError(f"{path} {wrong}: its header announces {expected:,} bytes, it holds {actual:,}")
    return Part(str(path), np.frombuffer(content, np.uint8, offset=header_size).reshape(shape))


def _unzipped(path: Path) -> bytes:
    # By content, because a browser may unpack a download and leave it the name with .gz.
    content = path.read_bytes()
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged: {error}") from error


def read_sample() -> Parts:
    """The package's MNIST sample, balanced by class: 4,000 training digits and 1,000 test digits."""
    return read_npz(SAMPLE)


DOWNLOAD_TIMEOUT = 10.0
"""Seconds without an answer after which the machine counts as offline."""


def load(path: Path | None) -> Dataset:
    """Reads and verifies the digits at `path`, or the best to be had without one. Raises DataError."""
    path = path or _cached()
    if path is not None:
        return read(path).verified(source=str(path))
    parts = _downloaded()
    if parts is not None:
        return parts.verified(source="keras.datasets.mnist")
    return read_sample().verified(source="the sample of MNIST in digit_training", offline=True)


def _cached() -> Path | None:
    path = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets" / "mnist.npz"
    return path if path.is_file() else None


def _downloaded() -> Parts | None:
    from keras.datasets import mnist

    try:
        with _impatient(), contextlib.redirect_stdout(io.StringIO()):
            (x_train, y_train), (x_test, y_test) = mnist.load_data()
    # Keras turns whatever fails in a download, even a wrong checksum, into a bare Exception or a ValueError.
    except Exception:
        return None
    return Parts(
        Part("Keras's mnist.npz: x_train", x_train),
        Part("Keras's mnist.npz: y_train", y_train),
        Part("Keras's mnist.npz: x_test", x_test),
        Part("Keras's mnist.npz: y_test", y_test),
    )


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
