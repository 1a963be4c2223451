"""."""

import gzip
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training import data
from digit_training.data import Dataset, Examples, Part, Parts, idx_md5
from digit_training.errors import DataError
from tests.conftest import Digits


def parts(dataset: Dataset) -> Parts:
    return Parts(
        Part("a.npz: x_train", dataset.train.images),
        Part("a.npz: y_train", dataset.train.labels),
        Part("a.npz: x_test", dataset.test.images),
        Part("a.npz: y_test", dataset.test.labels),
    )


def test_pixels_are_what_a_model_reads(dataset: Dataset) -> None:
    pixels = dataset.train.pixels
    assert pixels.shape == (4000, 784)
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_full_mnist_is_recognised(mnist: Dataset) -> None:
    assert mnist.canonical != mnist.offline
    assert (len(mnist.train), len(mnist.test)) == ((4000, 1000) if mnist.offline else (60_000, 10_000))


def test_some_of_mnist_is_not_canonical(dataset: Dataset) -> None:
    assert not dataset.canonical


def test_md5_is_that_of_the_idx_file(dataset: Dataset, as_idx: Callable[[NDArray[np.uint8]], bytes]) -> None:
    for array in (dataset.test.images, dataset.test.labels):
        assert idx_md5(array) == hashlib.md5(as_idx(array)).hexdigest()


@pytest.mark.parametrize(
    ("change", "complaint"),
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
def test_wrong_images_are_named(
    dataset: Dataset, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], complaint: str
) -> None:
    wrong = replace(parts(dataset), test_images=Part("a.npz: x_test", change(dataset.test.images)))
    with pytest.raises(DataError, match=f"a.npz: .*{complaint}"):
        wrong.verified("here")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda y: y + 1, "runs from 1 to 10, not from 0 to 9"),
        (lambda y: y.astype(np.int64) - 1, "runs from -1 to 8"),
        (lambda y: y / 2, "type float64, not whole numbers"),
        (lambda y: np.eye(10, dtype=np.uint8)[y], r"shape \[4000, 10\], not \[n\]"),
    ],
)
def test_wrong_labels_are_named(
    dataset: Dataset, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], complaint: str
) -> None:
    wrong = replace(parts(dataset), train_labels=Part("a.npz: y_train", change(dataset.train.labels)))
    with pytest.raises(DataError, match=f"a.npz: y_train.*{complaint}"):
        wrong.verified("here")


def test_mnist_with_other_labels_is_refused(mnist: Dataset) -> None:
    if mnist.offline:
        pytest.skip("needs all of MNIST")
    shuffled = Part("a.npz: y_test", mnist.test.labels[::-1])
    with pytest.raises(DataError, match=r"a.npz: y_test does not label MNIST's test images"):
        replace(parts(mnist), test_labels=shuffled).verified("here")


def test_a_test_set_that_was_trained_on_is_refused(mnist: Dataset) -> None:
    if mnist.offline:
        pytest.skip("needs all of MNIST")
    twice = replace(
        parts(mnist),
        test_images=Part("t10k-images", mnist.train.images),
        test_labels=Part("t10k-labels", mnist.train.labels),
    )
    with pytest.raises(DataError, match="t10k-images holds MNIST's train images, not its test images"):
        twice.verified("here")


def test_npz_and_idx_give_the_same_digits(mnist_npz: Path, idx_folder: Path, digits: Digits) -> None:
    npz = data.read(mnist_npz).verified("npz")
    idx = data.read(idx_folder).verified("idx")
    assert np.array_equal(npz.train.images[:200], idx.train.images)
    assert np.array_equal(npz.train.labels[:200], idx.train.labels)
    assert np.array_equal(digits.images[200:300], idx.test.images)
    assert np.array_equal(digits.labels[200:300], idx.test.labels)


def test_idx_files_may_be_named_with_a_dot(idx_folder: Path) -> None:
    path = idx_folder / "t10k-images-idx3-ubyte"
    path.rename(idx_folder / "t10k-images.idx3-ubyte")
    assert len(data.read(idx_folder).verified("idx").test) == 100


def test_an_idx_file_may_be_unpacked_and_still_named_gz(idx_folder: Path) -> None:
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(data.read(idx_folder).verified("idx").train) == 200


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.npz does not exist"):
        data.read(tmp_path / "nowhere.npz")


def test_a_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no train-images-idx3-ubyte, gzipped or not"):
        data.read(tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 100_000, -1])
def test_a_truncated_npz(mnist_npz: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(mnist_npz.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"mnist.npz is truncated or no .npz file"):
        data.read(path)


def test_an_array_that_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"x.npy is truncated or no .npz file"):
        data.read(tmp_path / "x.npy")


def test_an_npz_of_other_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3), images=np.zeros(3))
    with pytest.raises(DataError, match=r"other.npz lacks x_test, y_test, y_train"):
        data.read(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("kept", "complaint"),
    [
        (7, "is truncated: 7 bytes"),
        (5000, "is truncated: its header announces 78,400 bytes, it holds 4,984"),
    ],
)
def test_a_truncated_idx_file(idx_folder: Path, kept: int, complaint: str) -> None:
    path = idx_folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte {complaint}"):
        data.read(idx_folder)


def test_an_idx_file_with_too_much_in_it(idx_folder: Path) -> None:
    path = idx_folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is too long"):
        data.read(idx_folder)


def test_a_truncated_gzip_file(idx_folder: Path) -> None:
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz is truncated or damaged"):
        data.read(idx_folder)


def test_labels_under_the_name_of_images(idx_folder: Path) -> None:
    labels = idx_folder / "t10k-labels-idx1-ubyte"
    (idx_folder / "t10k-images-idx3-ubyte").write_bytes(labels.read_bytes())
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte begins with 00000801, not 00000803"):
        data.read(idx_folder)


def test_sample_is_balanced_and_its_halves_share_no_digit() -> None:
    dataset = data.read_sample().verified("sample", offline=True)
    train = {image.tobytes() for image in dataset.train.images}
    test = {image.tobytes() for image in dataset.test.images}
    assert (len(train), len(test), len(train & test)) == (4000, 1000, 0)
    assert np.bincount(dataset.train.labels).tolist() == [400] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10


def test_sample_halves_come_from_the_same_halves_of_mnist(mnist: Dataset) -> None:
    if mnist.offline:
        pytest.skip("needs all of MNIST")
    sample = data.read_sample().verified("sample", offline=True)
    for part, whole in ((sample.train, mnist.train), (sample.test, mnist.test)):
        assert _labelled(part) <= _labelled(whole)


def _labelled(examples: Examples) -> set[tuple[bytes, int]]:
    return {
        (image.tobytes(), int(label)) for image, label in zip(examples.images, examples.labels, strict=True)
    }


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of MNIST in a Keras cache that has none yet."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets" / "mnist.npz"


def test_the_cache_is_read_where_no_path_is_given(mnist_npz: Path, cache: Path) -> None:
    shutil.copy(mnist_npz, cache)
    dataset = data.load(None)
    assert (dataset.source, dataset.offline, len(dataset.train)) == (str(cache), False, 4000)


def test_the_path_given_comes_before_the_cache(idx_folder: Path, mnist_npz: Path, cache: Path) -> None:
    shutil.copy(mnist_npz, cache)
    dataset = data.load(idx_folder)
    assert (dataset.source, len(dataset.train)) == (str(idx_folder), 200)


def test_a_damaged_cache_is_named(mnist_npz: Path, cache: Path) -> None:
    cache.write_bytes(mnist_npz.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"{cache} is truncated"):
        data.load(None)
