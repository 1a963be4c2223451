"""Seams: touching shapes are cut where the least ink is crossed."""

import cv2
import numpy as np

from digit_client.images import seams
from tests.client.images.pictures import Pixels


def two_rings() -> Pixels:
    """Draw two rings side by side, joined by a short bar: uint8 [60, 126]."""
    mask = np.zeros((60, 126), np.uint8)
    for column in (29, 96):
        cv2.circle(mask, (column, 29), 26, 1, 6)
    mask[28:32, 56:70] = 1
    return mask


def test_cut_joined_rings_are_separated() -> None:
    cuts = np.flatnonzero(np.diff(seams.cut(two_rings())[29]))
    assert min(abs(cuts - 63)) <= 6


def test_cut_pieces_rise_from_left_to_right() -> None:
    pieces = seams.cut(two_rings())
    assert (np.diff(pieces, axis=1) >= 0).all()
    assert pieces[:, 0].max() == 0


def test_cut_solid_square_stays_whole() -> None:
    assert not seams.cut(np.ones((60, 60), np.uint8)).any()


def test_cut_slanted_gap_is_followed() -> None:
    mask = np.zeros((60, 90), np.uint8)
    cv2.line(mask, (50, 4), (25, 55), 1, 5)
    cv2.line(mask, (68, 4), (43, 55), 1, 5)
    mask[28:32, 35:60] = 1
    pieces = seams.cut(mask)
    first, second = pieces[4, 50], pieces[4, 68]
    assert second > first
    assert pieces[55, 43] > pieces[55, 25]
