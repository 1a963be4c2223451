"""Data loading: validation, file formats, and the choice of the source."""

import gzip
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_client import DIGITS
from digit_client.images import prepare
from digit_training import data
from digit_training.data import Dataset, Examples, Labels, RawArray, RawDataset, idx_md5
from digit_training.errors import DataError
from tests.conftest import Digits
from tests.training.conftest import encode_idx


def as_raw(dataset: Dataset) -> RawDataset:
    return RawDataset(
        RawArray("a.npz: x_train", dataset.train.images),
        RawArray("a.npz: y_train", dataset.train.labels),
        RawArray("a.npz: x_test", dataset.test.images),
        RawArray("a.npz: y_test", dataset.test.labels),
    )


def test_examples_pixels_are_flat_floats_from_0_to_1(dataset: Dataset) -> None:
    pixels = dataset.train.pixels
    assert pixels.shape == (4000, 784)
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_load_mnist_is_canonical_unless_offline(mnist: Dataset) -> None:
    assert mnist.canonical != mnist.offline
    assert (len(mnist.train), len(mnist.test)) == ((4000, 1000) if mnist.offline else (60_000, 10_000))


def test_dataset_of_the_sample_is_not_canonical(dataset: Dataset) -> None:
    assert not dataset.canonical


def test_idx_md5_is_the_md5_of_the_idx_file(dataset: Dataset) -> None:
    for array in (dataset.test.images, dataset.test.labels):
        assert idx_md5(array) == hashlib.md5(encode_idx(array)).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x / 255, "type float64, not uint8"),
        (lambda x: x[:, :27], r"shape \[1000, 27, 28\], not \[n, 28, 28\]"),
        (lambda x: x.reshape(-1, 784), r"shape \[1000, 784\]"),
        (lambda x: x[:0], r"shape \[0, 28, 28\]"),
        (lambda x: x // 255, "no pixel above 1"),
        (lambda x: 255 - x, "dark ink on light"),
        (lambda x: x[:-1], "y_test holds 1,000 labels for the 999 images of a.npz: x_test"),
    ],
)
def test_validate_wrong_images_raises_data_error_with_their_name(
    dataset: Dataset, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], message: str
) -> None:
    wrong = replace(as_raw(dataset), test_images=RawArray("a.npz: x_test", change(dataset.test.images)))
    with pytest.raises(DataError, match=f"a.npz: .*{message}"):
        wrong.validate("here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y + 1, "ranges from 1 to 10, not from 0 to 9"),
        (lambda y: y.astype(np.int64) - 1, "ranges from -1 to 8"),
        (lambda y: y / 2, "type float64, not integer"),
        (lambda y: np.eye(10, dtype=np.uint8)[y], r"shape \[4000, 10\], not \[n\]"),
    ],
)
def test_validate_wrong_labels_raises_data_error_with_their_name(
    dataset: Dataset, change: Callable[[Labels], Labels], message: str
) -> None:
    wrong = replace(as_raw(dataset), train_labels=RawArray("a.npz: y_train", change(dataset.train.labels)))
    with pytest.raises(DataError, match=f"a.npz: y_train.*{message}"):
        wrong.validate("here")


def test_validate_mnist_images_with_other_labels_raises_data_error(mnist: Dataset) -> None:
    if mnist.offline:
        pytest.skip("needs all of MNIST")
    shuffled = RawArray("a.npz: y_test", mnist.test.labels[::-1])
    with pytest.raises(DataError, match=r"a.npz: y_test does not label MNIST's test images"):
        replace(as_raw(mnist), test_labels=shuffled).validate("here")


def test_validate_mnist_training_set_as_test_set_raises_data_error(mnist: Dataset) -> None:
    if mnist.offline:
        pytest.skip("needs all of MNIST")
    swapped = replace(
        as_raw(mnist),
        test_images=RawArray("t10k-images", mnist.train.images),
        test_labels=RawArray("t10k-labels", mnist.train.labels),
    )
    with pytest.raises(DataError, match="t10k-images holds MNIST's train images, not its test images"):
        swapped.validate("here")


def test_read_npz_and_idx_give_the_same_digits(mnist_npz: Path, idx_folder: Path, digits: Digits) -> None:
    npz = data.read(mnist_npz).validate("npz")
    idx = data.read(idx_folder).validate("idx")
    assert np.array_equal(npz.train.images[:200], idx.train.images)
    assert np.array_equal(npz.train.labels[:200], idx.train.labels)
    assert np.array_equal(digits.images[200:300], idx.test.images)
    assert np.array_equal(digits.labels[200:300], idx.test.labels)


def test_read_idx_accepts_names_with_a_dot(idx_folder: Path) -> None:
    path = idx_folder / "t10k-images-idx3-ubyte"
    path.rename(idx_folder / "t10k-images.idx3-ubyte")
    assert len(data.read(idx_folder).validate("idx").test) == 100


def test_read_idx_accepts_uncompressed_file_named_gz(idx_folder: Path) -> None:
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(data.read(idx_folder).validate("idx").train) == 200


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


def test_read_missing_path_raises_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.npz does not exist"):
        data.read(tmp_path / "nowhere.npz")


def test_read_empty_folder_raises_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no train-images-idx3-ubyte, gzipped or not"):
        data.read(tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 100_000, -1])
def test_read_truncated_npz_raises_data_error(mnist_npz: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(mnist_npz.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"mnist.npz is truncated or not an .npz file"):
        data.read(path)


def test_read_npy_raises_data_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"x.npy is truncated or not an .npz file"):
        data.read(tmp_path / "x.npy")


def test_read_npz_without_mnists_keys_raises_data_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3), images=np.zeros(3))
    with pytest.raises(DataError, match=r"other.npz lacks x_test, y_test, y_train"):
        data.read(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("t10k-images-idx3-ubyte", lambda content: content[:7]),
        ("t10k-images-idx3-ubyte", lambda content: content[:5000]),
        ("t10k-labels-idx1-ubyte", lambda content: content + b"\0"),
        ("t10k-labels-idx1-ubyte", lambda content: b"\0\0\x08\x03" + content[4:]),
        ("train-images-idx3-ubyte.gz", lambda content: content[:-500]),
    ],
    ids=["header", "images", "too long", "dimensions", "gzip"],
)
def test_read_damaged_idx_raises_data_error(
    idx_folder: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    (idx_folder / name).write_bytes(change((idx_folder / name).read_bytes()))
    with pytest.raises(DataError, match=f"{name} is truncated or no IDX file"):
        data.read(idx_folder)


def test_read_sample_is_balanced_and_has_disjoint_sets() -> None:
    dataset = data.read_sample().validate("sample", offline=True)
    train = {image.tobytes() for image in dataset.train.images}
    test = {image.tobytes() for image in dataset.test.images}
    assert (len(train), len(test), len(train & test)) == (4000, 1000, 0)
    assert np.bincount(dataset.train.labels).tolist() == [400] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10


def test_read_hard_pictures_is_balanced_and_as_serving_prepares() -> None:
    pictures = data.read_hard_pictures()
    assert np.bincount(pictures.labels).tolist() == [46] * 10
    assert len({image.tobytes() for image in pictures.images}) == 460
    prepared = np.stack([prepare(image, DIGITS) for image in pictures.images])
    assert np.array_equal(prepared, pictures.images)


def test_read_sample_sets_are_subsets_of_those_of_mnist(mnist: Dataset) -> None:
    if mnist.offline:
        pytest.skip("needs all of MNIST")
    sample = data.read_sample().validate("sample", offline=True)
    for subset, whole in ((sample.train, mnist.train), (sample.test, mnist.test)):
        assert labelled_images(subset) <= labelled_images(whole)


def labelled_images(examples: Examples) -> set[tuple[bytes, int]]:
    return {
        (image.tobytes(), int(label)) for image, label in zip(examples.images, examples.labels, strict=True)
    }


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path at which Keras would cache MNIST; the cache is empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets" / "mnist.npz"


def test_load_without_path_reads_the_cache(mnist_npz: Path, cache: Path) -> None:
    shutil.copy(mnist_npz, cache)
    dataset = data.load(None)
    assert (dataset.source, dataset.offline, len(dataset.train)) == (str(cache), False, 4000)


def test_load_with_path_ignores_the_cache(idx_folder: Path, mnist_npz: Path, cache: Path) -> None:
    shutil.copy(mnist_npz, cache)
    dataset = data.load(idx_folder)
    assert (dataset.source, len(dataset.train)) == (str(idx_folder), 200)


def test_load_damaged_cache_raises_data_error_with_its_path(mnist_npz: Path, cache: Path) -> None:
    cache.write_bytes(mnist_npz.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"{cache} is truncated"):
        data.load(None)


def test_load_without_cache_reads_the_download_of_keras(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = dataset.train, dataset.test
    downloaded = (train.images, train.labels), (test.images, test.labels)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: downloaded)
    loaded = data.load(None)
    assert (loaded.source, loaded.offline, loaded.md5) == ("keras.datasets.mnist", False, dataset.md5)


def test_load_without_cache_and_network_reads_the_sample(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    loaded = data.load(None)
    assert (loaded.offline, loaded.md5) == (True, dataset.md5)
