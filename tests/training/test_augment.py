"""Augmentation: reproducibility, normalisation, stroke widths and legibility."""

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training.augment import Images, augment
from digit_training.data import Dataset


@pytest.fixture(scope="module")
def augmented(dataset: Dataset) -> Images:
    """1,000 augmentations of the first digit."""
    return augment(np.repeat(dataset.train.images[:1], 1000, axis=0), np.random.default_rng(0))


def stroke_widths(images: Images) -> NDArray[np.float64]:
    """Return each digit's mean stroke width in pixels: about twice the area divided by the perimeter."""
    ink = images > 127
    perimeter = sum(np.abs(np.diff(ink.astype(int), axis=axis)).sum(axis=(1, 2)) for axis in (1, 2))
    return np.asarray(2 * ink.sum(axis=(1, 2)) / np.maximum(perimeter, 1))


def test_augment_same_seed_gives_the_same_images_and_leaves_its_input_unchanged(dataset: Dataset) -> None:
    images = dataset.train.images[:50].copy()
    first, again, other = (augment(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not any(map(np.array_equal, first, other))
    assert np.array_equal(images, dataset.train.images[:50])
    assert not augment(np.zeros_like(images), np.random.default_rng(0)).any()


def test_augment_keeps_size_and_position_of_normalised_digits(augmented: Images) -> None:
    ink = augmented.astype(float)
    mass = ink.sum(axis=(1, 2))
    for axis in (1, 2):
        middle = ink.sum(axis=axis) @ np.arange(28) / mass
        assert middle.mean() == pytest.approx(14, abs=0.3)
        assert middle.std() < 1.5
    boxes = np.stack([(augmented > 127).any(axis=axis).sum(axis=1) for axis in (1, 2)]).max(axis=0)
    assert np.median(boxes) == pytest.approx(20, abs=1.5)


def test_augment_brightest_pixel_is_255(augmented: Images) -> None:
    assert augmented.dtype == np.uint8
    assert augmented.max(axis=(1, 2)).min() == 255
    assert np.median(augmented[:, 0, 0]) == 0


def test_augment_makes_strokes_thinner_and_thicker(dataset: Dataset, augmented: Images) -> None:
    before = stroke_widths(dataset.train.images[:1])[0]
    after = stroke_widths(augmented)
    assert np.quantile(after, 0.05) < 0.8 * before
    assert np.quantile(after, 0.95) > 1.4 * before


def test_augment_keeps_digits_legible(dataset: Dataset) -> None:
    """A nearest-mean classifier is nearly as accurate on augmented digits as on the originals."""
    train = dataset.train
    means = np.stack([train.images[train.labels == digit].mean(axis=0).ravel() for digit in range(10)])

    def accuracy(images: Images) -> float:
        distances = ((images.reshape(-1, 1, 784) - means) ** 2).sum(axis=2)
        return float((distances.argmin(axis=1) == dataset.test.labels).mean())

    plain = accuracy(dataset.test.images)
    assert plain - 0.2 < accuracy(augment(dataset.test.images, np.random.default_rng(0))) < plain
