"""Files of digits: Keras's `mnist.npz`, a folder of IDX files, and the package's sample of MNIST."""

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from digit_training.dataset import Part, Parts
from digit_training.errors import DataError

UNSIGNED_BYTES = 0x08
GZIP_MAGIC = b"\x1f\x8b"
SAMPLE = Path(__file__).parent / "data" / "mnist_sample.npz"
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
