"""Digits to learn from: four arrays, verified, and what is known of their origin."""

import hashlib
import struct
from dataclasses import dataclass
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
