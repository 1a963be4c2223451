"""Where MNIST may be had, in order: the path given, Keras's cache, its download, the package's sample."""

import contextlib
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from digit_training import readers
from digit_training.dataset import Dataset, Part, Parts

DOWNLOAD_TIMEOUT = 10.0
"""Seconds without an answer after which the machine counts as offline."""


def load(path: Path | None) -> Dataset:
    """Reads and verifies the digits at `path`, or the best to be had without one. Raises DataError."""
    path = path or _cached()
    if path is not None:
        return readers.read(path).verified(source=str(path))
    parts = _downloaded()
    if parts is not None:
        return parts.verified(source="keras.datasets.mnist")
    return readers.read_sample().verified(source="the sample of MNIST in digit_training", offline=True)


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
