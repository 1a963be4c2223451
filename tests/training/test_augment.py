"""Augmentation: reproducibility, normalisation, stroke widths and legibility."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from digit_training.augment import STRONG, Images, augment
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


def test_augment_keeps_size_position_and_brightness_of_normalised_digits(augmented: Images) -> None:
    assert augmented.dtype == np.uint8
    assert augmented.max(axis=(1, 2)).min() == 255
    assert np.median(augmented[:, 0, 0]) == 0
    ink = augmented.astype(float)
    mass = ink.sum(axis=(1, 2))
    for axis in (1, 2):
        middle = ink.sum(axis=axis) @ np.arange(28) / mass
        assert middle.mean() == pytest.approx(14, abs=0.3)
        assert middle.std() < 1.5
    boxes = np.stack([(augmented > 127).any(axis=axis).sum(axis=1) for axis in (1, 2)]).max(axis=0)
    assert np.median(boxes) == pytest.approx(20, abs=1.5)


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


def roughness(images: Images) -> NDArray[np.float64]:
    """Return the edges of each image, as a share of its ink: gaps and grain make more, thick pens fewer."""
    ink = images.astype(float)
    middle = ink[:, 1:-1, 1:-1]
    around = ink[:, :-2, 1:-1] + ink[:, 2:, 1:-1] + ink[:, 1:-1, :-2] + ink[:, 1:-1, 2:]
    return np.asarray(np.abs(4 * middle - around).mean(axis=(1, 2)) / ink.mean(axis=(1, 2)))


def greyness(images: Images) -> NDArray[np.float64]:
    """Return the share of grey pixels of each image."""
    return np.asarray(((images > 60) & (images < 200)).mean(axis=(1, 2)))


def straightness(images: Images) -> NDArray[np.float64]:
    """Return the most ink in the outermost row or column of each digit: a cut is straight."""
    sides = [np.rot90(images > 127, turns, axes=(1, 2)).sum(axis=2) for turns in range(4)]
    firsts = [side[np.arange(len(side)), (side > 0).argmax(axis=1)] for side in sides]
    return np.asarray(np.max(firsts, axis=0), float)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("gap_fraction", roughness),
        ("crop_fraction", straightness),
        ("pen_fraction", roughness),
        ("blur_fraction", greyness),
        ("grain_fraction", roughness),
    ],
)
def test_augment_distorts_the_fraction_of_the_digits(
    name: str, measure: Callable[[Images], NDArray[np.float64]]
) -> None:
    fractions = [field for field in vars(STRONG) if field.endswith("_fraction")]
    plain = replace(STRONG, rotation_std=0, shear_std=0, aspect_std=0, **dict.fromkeys(fractions, 0.0))
    zero = np.asarray(cv2.circle(np.zeros((28, 28), np.uint8), (14, 14), 9, 255, 2), np.uint8)
    zeros = np.repeat(zero[np.newaxis], 1000, axis=0)

    def mean(fraction: float) -> float:
        config = replace(plain, **{name: fraction})
        return float(measure(augment(zeros, np.random.default_rng(0), config)).mean())

    none, quarter, every = mean(0), mean(0.25), mean(1)
    assert (quarter - none) / (every - none) == pytest.approx(0.25, abs=0.1)
