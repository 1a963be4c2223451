"""Synthetic negatives: kinds, normalisation and reproducibility."""

import cv2
import numpy as np
import pytest

from digit_training.augment import Images
from digit_training.data import NO_DIGIT, Dataset, Examples
from digit_training.drawing import negatives
from digit_training.drawing.negatives import KINDS, Kind, draw_kind, draw_negatives
from digit_training.drawing.strokes import DOODLES, FOREIGN_LETTERS, LETTERS, SHAPES, SYMBOLS
from digit_training.drawing.synthetic import STYLES, parse_strokes


def only(label: int, dataset: Dataset) -> Examples:
    """Return the training digits of this label."""
    return dataset.train[np.flatnonzero(dataset.train.labels == label)]


def ink_sizes(images: Images) -> np.ndarray:
    """Return the width and height of each image's ink in pixels: [n, 2]."""
    return np.array([cv2.boundingRect(image)[2:] for image in images])


def test_strokes_are_distinct_and_no_digit() -> None:
    for table in (LETTERS, FOREIGN_LETTERS, SYMBOLS, SHAPES, DOODLES):
        assert len(set(table)) == len(table)
        assert not {style for _, style in STYLES} & set(table)
        assert all(len(stroke) > 1 for style in table for stroke in parse_strokes(style))


@pytest.mark.parametrize("name", KINDS)
def test_draw_kind_images_are_distinct_and_normalised_as_in_serving(name: str, dataset: Dataset) -> None:
    drawn = draw_kind(name, 20, np.random.default_rng(0), dataset.train)
    assert drawn.images.shape == (20, 28, 28)
    assert drawn.images.dtype == np.uint8
    assert set(drawn.labels.tolist()) == {NO_DIGIT}
    assert len({image.tobytes() for image in drawn.images}) > 15
    assert drawn.images.max(axis=(1, 2)).min() == 255
    assert np.median(ink_sizes(drawn.images).max(axis=1)) == 20
    assert len(draw_kind(name, 3, np.random.default_rng(0), only(1, dataset)[:1])) == 3


def test_negatives_of_a_seed_change_on_purpose_only(dataset: Dataset) -> None:
    """Another drawing makes other networks of the same commands; replace the figures if it is meant."""
    levels = [draw_kind(name, 10, np.random.default_rng(0), dataset.train).images.mean() for name in KINDS]
    trained = draw_negatives(300, np.random.default_rng(0), dataset.train).images
    assert (np.mean(levels), trained.mean()) == pytest.approx((40.561, 34.292), abs=0.005)


def test_draw_negatives_same_seed_gives_the_same_images(dataset: Dataset) -> None:
    first, again, other = (
        draw_negatives(60, np.random.default_rng(seed), dataset.train).images for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert draw_negatives(0, np.random.default_rng(1), dataset.train).images.shape == (0, 28, 28)


def test_draw_negatives_draws_trained_kinds_by_weight_and_no_held_out_kind(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def solid(width: int) -> Kind:
        return Kind(lambda _: np.ones((20, width), np.float32), {4: 1, 8: 3, 12: 0}[width])

    monkeypatch.setattr(negatives, "KINDS", {str(width): solid(width) for width in (4, 8, 12)})
    drawn = draw_negatives(400, np.random.default_rng(0), dataset.train)
    counts = np.bincount(ink_sizes(drawn.images)[:, 0], minlength=13)
    assert counts[4] + counts[8] == 400
    assert 2 < counts[8] / counts[4] < 4


def test_draw_kind_halves_of_ones_are_never_drawn(dataset: Dataset) -> None:
    """A half of a 1 is a 1: among ones and a single zero, only the zero is cut."""
    ones, zero = only(1, dataset)[:5], only(0, dataset)[:1]
    halves = draw_kind("halves of digits", 10, np.random.default_rng(0), ones + zero).images
    assert (ink_sizes(halves)[:, 0] > 8).all()


def test_draw_kind_turned_sevens_stand_on_their_heads(dataset: Dataset) -> None:
    seven = only(7, dataset)[:1]
    turned = draw_kind("turned digits", 1, np.random.default_rng(0), seven).images[0]
    upright, upside_down = (
        np.corrcoef(np.roll(image, (row, column), (0, 1)).ravel(), turned.ravel())[0, 1]
        for image, row, column in ((seven.images[0], 0, 0), (np.rot90(seven.images[0], 2), 1, 1))
    )
    assert upright < 0.5 < 0.9 < upside_down
