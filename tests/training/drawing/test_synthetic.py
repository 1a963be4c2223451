"""Synthetic digits: styles, drawing and normalisation."""

import cv2
import numpy as np
import pytest

from digit_core.images import is_normalized
from digit_training.data import Examples
from digit_training.drawing.synthetic import (
    PRINT,
    PRINTED_FRACTION,
    STYLES,
    draw_digits,
    draw_text,
    make_digits,
    parse_strokes,
    print_digits,
)


@pytest.fixture(scope="module")
def examples() -> Examples:
    """20 digits of each style."""
    return draw_digits(20 * len(STYLES), np.random.default_rng(0))


def test_parse_strokes_keeps_the_writing_order() -> None:
    assert parse_strokes("15,5 100,0 / 0,90 10,45") == (((0.15, 0.05), (1, 0)), ((0, 0.9), (0.1, 0.45)))


def test_styles_are_distinct_cover_all_digits_and_fill_the_height_of_their_boxes() -> None:
    assert {digit for digit, _ in STYLES} == set(range(10))
    assert len({style for _, style in STYLES}) == len(STYLES)
    for _, style in STYLES:
        strokes = parse_strokes(style)
        corners = [corner for stroke in strokes for corner in stroke]
        assert min(len(stroke) for stroke in strokes) > 1
        assert all(0 <= part <= 1 for corner in corners for part in corner)
        assert max(y for _, y in corners) - min(y for _, y in corners) >= 0.9, style


def test_draw_digits_uses_styles_equally_and_repeats_no_image(examples: Examples) -> None:
    digits = [label for label, _ in STYLES]
    assert np.bincount(examples.labels).tolist() == [20 * digits.count(digit) for digit in range(10)]
    assert len({image.tobytes() for image in examples.images}) == len(examples)


def test_draw_digits_images_are_normalised_as_in_serving(examples: Examples) -> None:
    for image in examples.images[:50]:
        assert is_normalized(image)
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) == 19


def test_draw_digits_eights_have_holes_and_threes_have_none(examples: Examples) -> None:
    def mean_holes(digit: int) -> float:
        images = examples.images[examples.labels == digit]
        return float(np.mean([cv2.connectedComponents((i < 128).astype(np.uint8))[0] - 2 for i in images]))

    assert mean_holes(8) > 1 > 0.2 > mean_holes(3)


def test_draw_digits_same_seed_gives_the_same_images() -> None:
    first, again, other = (draw_digits(9, np.random.default_rng(seed)).images for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert draw_digits(0, np.random.default_rng(1)).images.shape == (0, 28, 28)


def test_print_digits_are_equally_many_of_each_and_normalised() -> None:
    printed = print_digits(60, np.random.default_rng(0))
    assert np.bincount(printed.labels).tolist() == [6] * 10
    assert len({image.tobytes() for image in printed.images}) == 60
    assert np.mean([is_normalized(image) for image in printed.images]) > 0.9


@pytest.mark.parametrize("font", PRINT.fonts)
def test_draw_text_eight_has_two_holes_in_every_font(font: str) -> None:
    ink = draw_text("8", [font], np.random.default_rng(0))
    assert cv2.connectedComponents((np.pad(ink, 1) < 0.5).astype(np.uint8))[0] - 2 == 2


def test_make_digits_adds_a_share_of_printed_digits_to_drawn_ones() -> None:
    made = make_digits(100, np.random.default_rng(0))
    drawn = draw_digits(100 - round(PRINTED_FRACTION * 100), np.random.default_rng(0))
    assert len(made) == 100
    assert np.array_equal(made.images[: len(drawn)], drawn.images)
