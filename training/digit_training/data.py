"""Data loading: validated MNIST, from a file or by Keras, or the bundled sample."""

import contextlib
import gzip
import hashlib
import io
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from digit_training.errors import DataError

SAMPLE = Path(__file__).parent / "sample" / "mnist_sample.npz"
"""5,000 MNIST digits for machines without internet. The README beside the file states origin and licence."""

HARD_PICTURES = SAMPLE.with_name("hard_pictures.npz")
"""460 difficult pictures of MNIST's test digits, prepared as in serving."""

MNIST_MD5 = {
    "train images": "6bbc9ace898e44ae57da46a324031adb",
    "train labels": "a25bea736e30d166cdddb491f175f624",
    "test images": "2646ac647ad5339dbf082846283269ea",
    "test labels": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of MNIST's four files in IDX format, uncompressed."""

NO_DIGIT = 10
"""Label of a negative: an image without a digit, or with more than one."""

DOWNLOAD_TIMEOUT = 10.0
"""Socket timeout of the download in seconds; after a timeout, the machine counts as offline."""

Labels = NDArray[np.integer[Any]]

_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_IDX_UINT8 = 0x08


@dataclass(frozen=True)
class Examples:
    """Images uint8 [n, *shape] and the indices of their labels, integer [n]; of a multi-label task 0 or 1 for
    each label, [n, k].

    Of digits, the images are [n, 28, 28], light ink on dark, and the labels 0..9 or NO_DIGIT.
    """

    images: NDArray[np.uint8]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> "Examples":
        return Examples(self.images[rows], self.labels[rows])

    def __add__(self, other: "Examples") -> "Examples":
        return Examples(
            np.concatenate((self.images, other.images)), np.concatenate((self.labels, other.labels))
        )

    def repeat(self, times: int) -> "Examples":
        """Return each example `times` times."""
        return Examples(self.images.repeat(times, axis=0), self.labels.repeat(times))

    @property
    def pixels(self) -> NDArray[np.float32]:
        """Input of the digits' networks: float32 [n, 784], 0..1."""
        return self.images.reshape(-1, 784).astype(np.float32) / np.float32(255)


@dataclass(frozen=True)
class Dataset:
    """Validated training and test sets."""

    train: Examples
    test: Examples
    source: str
    """Path or name of the origin."""
    offline: bool
    """True if the bundled sample replaces MNIST, which could not be downloaded."""
    md5: dict[str, str]
    """MD5 of each array in IDX format, by the keys of MNIST_MD5."""

    @property
    def canonical(self) -> bool:
        """True if the checksums are those of the complete, original MNIST."""
        return self.md5 == MNIST_MD5

    def describe(self) -> dict[str, Any]:
        """Return origin, checksums and sizes as JSON values for the model card."""
        return {
            "source": self.source,
            "canonical": self.canonical,
            "offline": self.offline,
            "md5": self.md5,
            "test_checksum": self.md5["test images"],
            "train": len(self.train),
            "test": len(self.test),
        }


class RawArray(NamedTuple):
    """An unvalidated array. `name` is its location for error messages: a file, or a file and a key."""

    name: str
    values: NDArray[Any]


def load(path: Path | None) -> Dataset:
    """Return the validated digits at `path`, an `.npz` file or a folder of IDX files.

    If None, return those that Keras caches or downloads; offline, the bundled sample. Raise DataError if the
    file is missing or invalid.
    """
    if path is not None:
        return validate(_read(path), str(path))
    if downloaded := _download():
        return validate(downloaded, "keras.datasets.mnist")
    return validate(_read(SAMPLE), "the sample of MNIST in digit_training", offline=True)


def validate(arrays: Sequence[RawArray], source: str, offline: bool = False) -> Dataset:
    """Return the data set of training images, training labels, test images and test labels.

    Raise DataError for wrong shapes, types or ranges, for swapped MNIST files, and for MNIST's images with
    other labels.
    """
    train, test = _validate_examples(*arrays[:2]), _validate_examples(*arrays[2:])
    checksums = map(_idx_md5, (train.images, train.labels, test.images, test.labels))
    md5 = dict(zip(MNIST_MD5, checksums, strict=True))
    role_of = {checksum: role for role, checksum in MNIST_MD5.items()}
    for (role, checksum), array in zip(md5.items(), arrays, strict=True):
        if role_of.get(checksum, role) != role:
            raise DataError(f"{array.name} holds MNIST's {role_of[checksum]}, not its {role}")
    for images, labels, array in (
        ("train images", "train labels", arrays[1]),
        ("test images", "test labels", arrays[3]),
    ):
        if md5[images] == MNIST_MD5[images] and md5[labels] != MNIST_MD5[labels]:
            raise DataError(
                f"{array.name} does not label MNIST's {images}: its MD5 is {md5[labels]}, "
                f"not {MNIST_MD5[labels]}"
            )
    return Dataset(train, test, source, offline, md5)


def has_training_set(path: Path) -> bool:
    """True for an `.npz` file with `x_train` and for a folder with IDX files of training images.

    Raise DataError if the file is damaged.
    """
    if not path.is_file():
        return any(path.glob("train-images*idx3-ubyte*"))
    with open_npz(path) as arrays:
        return "x_train" in arrays


def has_idx_files(path: Path) -> bool:
    """True for a folder with files in MNIST's format."""
    return any(path.glob("*idx*-ubyte*"))


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Open an `.npz` file, whose arrays are read on access. Raise DataError if the file is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    # NumPy's message may advise `allow_pickle`, which runs code from the file.
    except (EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated, or is not an .npz file") from error


def read_idx_pair(folder: Path, subset: str) -> tuple[RawArray, RawArray]:
    """Read images and labels of a subset, `train` or `t10k`, from IDX files, gzipped or not.

    Raise DataError if one is missing or damaged.
    """
    return _read_idx(folder, f"{subset}-images", 3), _read_idx(folder, f"{subset}-labels", 1)


def read_hard_pictures() -> Examples:
    """Read the bundled hard pictures, of which no network learns."""
    with open_npz(HARD_PICTURES) as arrays:
        return Examples(arrays["x_test"], arrays["y_test"])


def check_counts(images: RawArray, labels: RawArray) -> None:
    """Raise DataError unless there are as many labels as images, and any."""
    if len(images.values) != len(labels.values) or not len(labels.values):
        raise DataError(
            f"{labels.name} holds {len(labels.values):,} labels for the {len(images.values):,} images "
            f"of {images.name}"
        )


def check_labels(labels: RawArray, classes: int) -> Labels:
    """Return the labels. Raise DataError unless they are indices of so many classes, integer [n]."""
    values = labels.values
    if values.ndim != 1:
        raise DataError(f"{labels.name} has shape {list(values.shape)}, not [n]")
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{labels.name} is of type {values.dtype}, not integer")
    if len(values) and (values.min() < 0 or values.max() >= classes):
        low, high = values.min(), values.max()
        raise DataError(f"{labels.name} ranges from {low} to {high}, not from 0 to {classes - 1}")
    return values


def _idx_md5(array: NDArray[np.integer[Any]]) -> str:
    """Return the MD5 of the array as an IDX file: magic number, sizes, bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, _IDX_UINT8, array.ndim, *array.shape)
    return hashlib.md5(header + array.tobytes(), usedforsecurity=False).hexdigest()


def _validate_examples(images: RawArray, labels: RawArray) -> Examples:
    pixels = images.values
    if pixels.dtype != np.uint8:
        raise DataError(f"{images.name} is of type {pixels.dtype}, not uint8 (0..255)")
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28):
        raise DataError(f"{images.name} has shape {list(pixels.shape)}, not [n, 28, 28]")
    values = check_labels(labels, 10)
    check_counts(images, labels)
    if pixels.max() < 128:
        raise DataError(f"{images.name} has no pixel above {pixels.max()}: pixels range from 0 to 255")
    if pixels.mean() > 127:
        raise DataError(f"{images.name} is dark ink on light: MNIST's digits are light ink on dark")
    return Examples(np.ascontiguousarray(pixels), values.astype(np.uint8))


def _read(path: Path) -> Sequence[RawArray]:
    if path.is_dir():
        if not has_idx_files(path):
            raise DataError(f"{path} has neither a folder for each digit, 0 to 9, nor MNIST's IDX files")
        return *read_idx_pair(path, "train"), *read_idx_pair(path, "t10k")
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    with open_npz(path) as arrays:
        if missing := set(_NPZ_KEYS) - set(arrays):
            raise DataError(f"{path} lacks {', '.join(sorted(missing))}: it is not Keras's mnist.npz")
        return [RawArray(f"{path}: {key}", arrays[key]) for key in _NPZ_KEYS]


def _read_idx(folder: Path, stem: str, dimensions: int) -> RawArray:
    # The original names have a dash before "idx"; some mirrors have a dot.
    path = min(folder.glob(f"{stem}[-.]idx{dimensions}-ubyte*"), default=None)
    if path is None:
        raise DataError(f"{folder} has no {stem}-idx{dimensions}-ubyte, neither gzipped nor plain")
    content = path.read_bytes()
    try:
        # Browsers may unpack a download and keep its suffix .gz: only the magic number is reliable.
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        magic, *shape = np.frombuffer(content, ">u4", 1 + dimensions)
        if magic != (_IDX_UINT8 << 8) + dimensions:
            raise ValueError(f"it begins with {magic:08x}")
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        return RawArray(str(path), values.reshape(shape))
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} is truncated, or is not an IDX file of bytes in {dimensions} dimensions: {error}"
        ) from error


def _download() -> Sequence[RawArray] | None:
    """Return MNIST from Keras's cache or its download; None offline."""
    from keras.datasets import mnist

    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            train, test = mnist.load_data()
    # Keras raises Exception or ValueError for any failed download, even for a wrong checksum.
    except Exception:
        return None
    finally:
        socket.setdefaulttimeout(previous)
    arrays = zip(_NPZ_KEYS, (*train, *test), strict=True)
    return [RawArray(f"Keras's mnist.npz: {key}", values) for key, values in arrays]
