"""Ink masks: dark and light ink, shade, and printed lines."""

import cv2
import numpy as np
import pytest

from digit_client.images.ink_masks import InkMask, ink_masks
from tests.client.images.pictures import Pixels, photograph


@pytest.fixture
def stroke(seven: Pixels) -> Pixels:
    """Strokes of a seven in a mask: uint8 [240, 320]."""
    mask = np.zeros((240, 320), np.uint8)
    mask[60:144, 100:184] = cv2.resize(seven, (84, 84), interpolation=cv2.INTER_CUBIC) > 100
    return mask


def draw(stroke: Pixels, paper: float, ink: float) -> Pixels:
    return photograph(np.where(stroke > 0, np.float32(ink), np.float32(paper)))


def likeness(found: InkMask, stroke: Pixels) -> float:
    """Return the intersection over union."""
    return float((found.mask & stroke).sum() / (found.mask | stroke).sum())


@pytest.mark.parametrize(("paper", "ink"), [(220, 40), (30, 200), (200, 150)])
def test_ink_masks_plain_paper_first_mask_is_ink(stroke: Pixels, paper: float, ink: float) -> None:
    first = ink_masks(draw(stroke, paper, ink))[0]
    assert likeness(first, stroke) > 0.9
    assert first.ink.shape == stroke.shape
    assert (first.ink[first.mask > 0] >= 0.5).all()


def test_ink_masks_colored_ink_is_found(stroke: Pixels) -> None:
    picture = np.where(stroke[:, :, None] > 0, (200, 60, 60), (225, 225, 210)).astype(np.float32)
    assert likeness(ink_masks(photograph(picture))[0], stroke) > 0.9


def test_ink_masks_shade_is_no_ink(stroke: Pixels) -> None:
    shade = np.linspace(0, 90, 320, dtype=np.float32)
    picture = photograph(np.where(stroke > 0, np.float32(60), np.float32(220)) - 0.6 * shade)
    assert any(likeness(found, stroke) > 0.85 for found in ink_masks(picture))


def test_ink_masks_dark_frame_around_pencil_is_removed(stroke: Pixels) -> None:
    levels = np.where(stroke > 0, np.float32(150), np.float32(230))
    cv2.rectangle(levels, (70, 30), (220, 180), 10, 4)
    assert likeness(ink_masks(photograph(levels))[0], stroke) > 0.85


def test_ink_masks_squared_paper_leaves_crossing_strokes(stroke: Pixels) -> None:
    levels = np.full(stroke.shape, 240, np.float32)
    levels[::20], levels[:, ::20] = 150, 150
    levels[stroke > 0] = 40
    assert any(likeness(found, stroke) > 0.8 for found in ink_masks(photograph(levels)))


def test_ink_masks_blank_paper_returns_none() -> None:
    assert ink_masks(np.full((240, 320), 200, np.uint8)) == []
