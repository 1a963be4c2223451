"""Boxes: enclosing, distances and slices."""

import numpy as np
import pytest

from digit_client._types import Box
from digit_client.images import boxes


def test_enclose_boxes_returns_smallest_box() -> None:
    assert boxes.enclose([(10, 20, 5, 5), (12, 4, 30, 6)]) == (10, 4, 32, 21)


@pytest.mark.parametrize(
    ("other", "expected"), [((20, 10, 5, 5), (5, -5)), ((0, 0, 8, 4), (2, 6)), ((12, 12, 9, 9), (-3, -3))]
)
def test_gaps_are_distances_and_overlaps(other: Box, expected: tuple[int, int]) -> None:
    assert boxes.gaps((10, 10, 5, 5), other) == expected
    assert boxes.gaps(other, (10, 10, 5, 5)) == expected


def test_contains_box_within_is_true() -> None:
    assert boxes.contains((0, 0, 10, 10), (3, 0, 7, 10))
    assert not boxes.contains((0, 0, 10, 10), (3, 0, 8, 10))


def test_slices_select_rows_and_columns() -> None:
    assert np.zeros((20, 30))[boxes.slices((4, 5, 6, 7))].shape == (7, 6)
