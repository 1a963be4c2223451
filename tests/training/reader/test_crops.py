"""Crops of drawn pages as training examples."""

import numpy as np

from digit_training.data import NO_DIGIT, Dataset
from digit_training.reader.crops import crop_digits, crop_negatives


def test_crops_are_digits_in_mnists_form_and_the_same_for_a_seed(dataset: Dataset) -> None:
    first, second = (crop_digits(60, dataset.train, np.random.default_rng(3)) for _ in range(2))
    assert first.images.shape == (60, 28, 28)
    assert set(first.labels.tolist()) <= set(range(10))
    assert np.array_equal(first.images, second.images)
    assert (first.images.reshape(60, -1).max(axis=1) == 255).all()


def test_crops_of_few_digits_have_other_labels_too(dataset: Dataset) -> None:
    few = dataset.train[:3]
    assert len(set(crop_digits(60, few, np.random.default_rng(0)).labels.tolist())) == 10


def test_no_crops_need_no_digits(dataset: Dataset) -> None:
    assert len(crop_digits(0, dataset.train[:0], np.random.default_rng(0))) == 0


def test_negatives_are_what_the_reader_finds_without_a_digit(dataset: Dataset) -> None:
    found = crop_negatives(20, dataset.train[:100], np.random.default_rng(0))
    assert found.images.shape == (20, 28, 28)
    assert found.labels.tolist() == [NO_DIGIT] * 20
    assert found.images.reshape(20, -1).any(axis=1).all()
    assert len(crop_negatives(0, dataset.train[:0], np.random.default_rng(0))) == 0
