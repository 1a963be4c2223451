import gzip
from pathlib import Path

import numpy as np
import pytest

from digit_training import readers
from digit_training.dataset import Dataset, Examples
from digit_training.errors import DataError
from tests.conftest import Digits


def test_npz_and_idx_give_the_same_digits(mnist_npz: Path, idx_folder: Path, digits: Digits) -> None:
    npz = readers.read(mnist_npz).verified("npz")
    idx = readers.read(idx_folder).verified("idx")
    assert np.array_equal(npz.train.images[:200], idx.train.images)
    assert np.array_equal(npz.train.labels[:200], idx.train.labels)
    assert np.array_equal(digits.images[200:300], idx.test.images)
    assert np.array_equal(digits.labels[200:300], idx.test.labels)


def test_idx_files_may_be_named_with_a_dot(idx_folder: Path) -> None:
    path = idx_folder / "t10k-images-idx3-ubyte"
    path.rename(idx_folder / "t10k-images.idx3-ubyte")
    assert len(readers.read(idx_folder).verified("idx").test) == 100


def test_an_idx_file_may_be_unpacked_and_still_named_gz(idx_folder: Path) -> None:
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(readers.read(idx_folder).verified("idx").train) == 200


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.npz does not exist"):
        readers.read(tmp_path / "nowhere.npz")


def test_a_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no train-images-idx3-ubyte, gzipped or not"):
        readers.read(tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 100_000, -1])
def test_a_truncated_npz(mnist_npz: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(mnist_npz.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"mnist.npz is truncated or no .npz file"):
        readers.read(path)


def test_an_array_that_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"x.npy is truncated or no .npz file"):
        readers.read(tmp_path / "x.npy")


def test_an_npz_of_other_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3), images=np.zeros(3))
    with pytest.raises(DataError, match=r"other.npz lacks x_test, y_test, y_train"):
        readers.read(tmp_path / "other.npz")


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
        readers.read(idx_folder)


def test_an_idx_file_with_too_much_in_it(idx_folder: Path) -> None:
    path = idx_folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is too long"):
        readers.read(idx_folder)


def test_a_truncated_gzip_file(idx_folder: Path) -> None:
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz is truncated or damaged"):
        readers.read(idx_folder)


def test_labels_under_the_name_of_images(idx_folder: Path) -> None:
    labels = idx_folder / "t10k-labels-idx1-ubyte"
    (idx_folder / "t10k-images-idx3-ubyte").write_bytes(labels.read_bytes())
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte begins with 00000801, not 00000803"):
        readers.read(idx_folder)


def test_sample_is_balanced_and_its_halves_share_no_digit() -> None:
    dataset = readers.read_sample().verified("sample", offline=True)
    train = {image.tobytes() for image in dataset.train.images}
    test = {image.tobytes() for image in dataset.test.images}
    assert (len(train), len(test), len(train & test)) == (4000, 1000, 0)
    assert np.bincount(dataset.train.labels).tolist() == [400] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10


def test_sample_halves_come_from_the_same_halves_of_mnist(mnist: Dataset) -> None:
    if mnist.offline:
        pytest.skip("needs all of MNIST")
    sample = readers.read_sample().verified("sample", offline=True)
    for part, whole in ((sample.train, mnist.train), (sample.test, mnist.test)):
        assert _labelled(part) <= _labelled(whole)


def _labelled(examples: Examples) -> set[tuple[bytes, int]]:
    return {
        (image.tobytes(), int(label)) for image, label in zip(examples.images, examples.labels, strict=True)
    }
