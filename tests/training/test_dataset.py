import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training.dataset import Dataset, Part, Parts, idx_md5
from digit_training.errors import DataError


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
