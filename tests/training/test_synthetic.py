"""."""

import cv2
import numpy as np
import pytest

from digit_client.images import is_normalized
from digit_training.synthetic import STYLES, drawn, lines


def test_lines_are_read_in_the_order_of_writing() -> None:
    assert lines("15,5 100,0 / 0,90 10,45") == (((0.15, 0.05), (1, 0)), ((0, 0.9), (0.1, 0.45)))


def test_each_digit_has_styles() -> None:
    assert {digit for digit, _ in STYLES} == set(range(10))


def test_no_style_is_there_twice() -> None:
    assert len({style for _, style in STYLES}) == len(STYLES)


@pytest.mark.parametrize(("digit", "style"), STYLES)
def test_every_style_fills_its_height(digit: int, style: str) -> None:
    written = lines(style)
    corners = [corner for line in written for corner in line]
    assert min(len(line) for line in written) > 1
    assert all(0 <= part <= 1 for corner in corners for part in corner)
    assert max(y for _, y in corners) - min(y for _, y in corners) >= 0.9, digit


def test_every_style_is_drawn_as_often_and_never_twice_the_same() -> None:
    examples = drawn(20 * len(STYLES), np.random.default_rng(0))
    digits = [label for label, _ in STYLES]
    assert np.bincount(examples.labels).tolist() == [20 * digits.count(digit) for digit in range(10)]
    assert len({image.tobytes() for image in examples.images}) == len(examples)


def test_they_look_like_what_serving_hands_to_a_model() -> None:
    for image in drawn(50, np.random.default_rng(0)).images:
        assert is_normalized(image)
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) == 19


def test_eights_have_holes_and_threes_none() -> None:
    examples = drawn(20 * len(STYLES), np.random.default_rng(0))

    def holes(digit: int) -> float:
        images = examples.images[examples.labels == digit]
        return float(np.mean([cv2.connectedComponents((i < 128).astype(np.uint8))[0] - 2 for i in images]))

    assert holes(8) > 1 > 0.2 > holes(3)


def test_the_seed_decides() -> None:
    first, again, other = (drawn(9, np.random.default_rng(seed)).images for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("count", [0, 1])
def test_few_may_be_asked_for(count: int) -> None:
    examples = drawn(count, np.random.default_rng(0))
    assert examples.images.shape == (count, 28, 28)
    assert len(examples.labels) == count
