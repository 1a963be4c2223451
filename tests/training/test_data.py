"""Data loading: validation, file formats, and the choice of the source."""

import gzip
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS
from digit_core.images import prepare
from digit_training import data
from digit_training.data import Dataset, RawArray
from digit_training.errors import DataError
from tests.conftest import Digits
from tests.training.conftest import encode_idx

KEYS = ("x_train", "y_train", "x_test", "y_test")


def arrays_of(dataset: Dataset) -> dict[str, NDArray[np.integer[Any]]]:
    parts = (dataset.train.images, dataset.train.labels, dataset.test.images, dataset.test.labels)
    return dict(zip(KEYS, parts, strict=True))


def test_load_mnist_is_canonical_unless_offline(mnist: Dataset) -> None:
    assert mnist.canonical != mnist.offline
    assert (len(mnist.train), len(mnist.test)) == ((4000, 1000) if mnist.offline else (60_000, 10_000))


def test_load_sample_states_its_md5_as_idx_files_and_has_disjoint_balanced_sets(dataset: Dataset) -> None:
    assert not dataset.canonical
    expected = [hashlib.md5(encode_idx(array)).hexdigest() for array in arrays_of(dataset).values()]
    assert list(dataset.md5.values()) == expected
    train, test = ({image.tobytes() for image in part.images} for part in (dataset.train, dataset.test))
    assert (len(train), len(test), len(train & test)) == (4000, 1000, 0)
    assert np.bincount(dataset.train.labels).tolist() == [400] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10
    pixels = dataset.train.pixels
    assert pixels.shape == (4000, 784)
    assert pixels.dtype == np.float32
    assert (float(pixels.min()), float(pixels.max())) == (0, 1)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("x_test", lambda x: x / 255, "type float64, not uint8"),
        ("x_test", lambda x: x[:, :27], r"shape \[1000, 27, 28\], not \[n, 28, 28\]"),
        ("x_test", lambda x: x // 255, "no pixel above 1"),
        ("x_test", lambda x: 255 - x, "dark ink on light"),
        ("x_test", lambda x: x[:-1], "y_test holds 1,000 labels for the 999 images of a.npz: x_test"),
        ("y_train", lambda y: y.astype(np.int64) - 1, "ranges from -1 to 8, not from 0 to 9"),
        ("y_train", lambda y: y / 2, "type float64, not integer"),
        ("y_train", lambda y: np.eye(10, dtype=np.uint8)[y], r"shape \[4000, 10\], not \[n\]"),
    ],
)
def test_validate_wrong_arrays_raises_data_error_with_their_name(
    dataset: Dataset, key: str, change: Callable[[NDArray[np.generic]], NDArray[np.generic]], message: str
) -> None:
    arrays: dict[str, NDArray[np.generic]] = {**arrays_of(dataset)}
    arrays[key] = change(arrays[key])
    with pytest.raises(DataError, match=f"a.npz: .*{message}"):
        data.validate([RawArray(f"a.npz: {name}", array) for name, array in arrays.items()], "here")


def test_validate_mnist_with_labels_or_files_interchanged_raises_data_error(mnist: Dataset) -> None:
    if mnist.offline:
        pytest.skip("needs all of MNIST")
    right = arrays_of(mnist)
    shuffled = {**right, "y_test": right["y_test"][::-1]}
    with pytest.raises(DataError, match=r"a.npz: y_test does not label MNIST's test images"):
        data.validate([RawArray(f"a.npz: {name}", array) for name, array in shuffled.items()], "here")
    swapped = {**right, "x_test": right["x_train"], "y_test": right["y_train"]}
    with pytest.raises(DataError, match=r"a.npz: x_test holds MNIST's train images, not its test images"):
        data.validate([RawArray(f"a.npz: {name}", array) for name, array in swapped.items()], "here")


def test_load_idx_accepts_a_dot_in_names_and_unpacked_files_named_gz(
    idx_folder: Path, digits: Digits
) -> None:
    (idx_folder / "t10k-images-idx3-ubyte").rename(idx_folder / "t10k-images.idx3-ubyte")
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    idx = data.load(idx_folder)
    assert idx.source == str(idx_folder)
    for examples, rows in ((idx.train, slice(200)), (idx.test, slice(200, 300))):
        assert np.array_equal(examples.images, digits.images[rows])
        assert np.array_equal(examples.labels, digits.labels[rows])


def test_has_training_set_tells_mnist_from_test_pictures(
    mnist_npz: Path, idx_folder: Path, tmp_path: Path
) -> None:
    assert data.has_training_set(mnist_npz)
    assert data.has_training_set(idx_folder)
    for path in idx_folder.glob("train-images*"):
        path.unlink()
    np.savez(tmp_path / "test.npz", x_test=[0], y_test=[0])
    for path in (idx_folder, tmp_path / "test.npz", tmp_path / "none.npz"):
        assert not data.has_training_set(path)


def test_load_missing_or_other_files_raises_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has neither a folder for each digit"):
        data.load(tmp_path)
    with pytest.raises(DataError, match=r"nowhere.npz does not exist"):
        data.load(tmp_path / "nowhere.npz")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"x.npy is truncated, or is not an .npz file$"):
        data.load(tmp_path / "x.npy")
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3), images=np.zeros(3))
    with pytest.raises(DataError, match=r"other.npz lacks x_test, y_test, y_train"):
        data.load(tmp_path / "other.npz")


@pytest.mark.parametrize("kept", [0, -1])
def test_load_truncated_npz_raises_data_error(mnist_npz: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(mnist_npz.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"mnist.npz is truncated, or is not an .npz file"):
        data.load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("t10k-images-idx3-ubyte", lambda content: content[:7]),
        ("t10k-labels-idx1-ubyte", lambda content: content + b"\0"),
        ("t10k-labels-idx1-ubyte", lambda content: b"\0\0\x08\x03" + content[4:]),
        ("train-images-idx3-ubyte.gz", lambda content: content[:-500]),
    ],
    ids=["header", "too long", "dimensions", "gzip"],
)
def test_load_damaged_idx_raises_data_error(
    idx_folder: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    (idx_folder / name).write_bytes(change((idx_folder / name).read_bytes()))
    with pytest.raises(DataError, match=f"{name} is truncated, or is not an IDX file"):
        data.load(idx_folder)


def test_read_hard_pictures_is_balanced_and_as_serving_prepares() -> None:
    pictures = data.read_hard_pictures()
    assert np.bincount(pictures.labels).tolist() == [46] * 10
    assert len({image.tobytes() for image in pictures.images}) == 460
    prepared = np.stack([prepare(image, DIGITS) for image in pictures.images])
    assert np.array_equal(prepared, pictures.images)


def test_load_without_path_reads_the_data_of_keras_or_the_sample(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = dataset.train, dataset.test
    of_keras = (train.images, train.labels), (test.images, test.labels)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: of_keras)
    loaded = data.load(None)
    assert (loaded.source, loaded.offline, loaded.md5) == ("keras.datasets.mnist", False, dataset.md5)

    timeouts = []

    def fail() -> None:
        timeouts.append(socket.getdefaulttimeout())
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    loaded = data.load(None)
    assert (loaded.offline, loaded.md5) == (True, dataset.md5)
    assert (timeouts, socket.getdefaulttimeout()) == ([data.DOWNLOAD_TIMEOUT], None)
