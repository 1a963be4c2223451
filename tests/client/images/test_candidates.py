"""Candidates: each digit of a number is among them, with its box."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images.candidates import Candidate, Candidates
from tests.client.images.pictures import Pixels, crop_digit, photograph, similarity

Box = tuple[int, int, int, int]


def draw_number(digits: list[Pixels], gap: int, height: int = 60) -> tuple[Pixels, list[Box]]:
    """Draw the digits in dark grey on a light page, `gap` pixels apart; return the page and their boxes."""
    page, boxes, left = np.full((160, 640), 230, np.float32), [], 40
    for digit in digits:
        crop = crop_digit(digit)
        width = round(crop.shape[1] * height / crop.shape[0])
        ink = cv2.resize(crop, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        area = page[50 : 50 + height, left : left + width]
        np.minimum(area, 230 - 0.7 * ink, out=area)
        boxes.append((left, 50, width, height))
        left += width + gap
    return photograph(page), boxes


def all_of(candidates: Candidates) -> list[Candidate]:
    return [candidate for layer in candidates.layers for candidate in layer.candidates]


def boxes_of(candidates: Candidates) -> list[Box]:
    return [candidate.box for candidate in all_of(candidates)]


def overlap(box: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    common = max(0, width) * max(0, height)
    return common / (box[2] * box[3] + other[2] * other[3] - common)


@pytest.mark.parametrize("gap", [30, 6, -3])
def test_segment_number_includes_each_digit(digits: Any, gap: int) -> None:
    expected = [digits.one(digit) for digit in (2, 0, 7)]
    page, boxes = draw_number(expected, gap)
    candidates = images.segment(page)
    for digit, box in zip(expected, boxes, strict=True):
        nearest = max(all_of(candidates), key=lambda candidate: overlap(box, candidate.box))
        assert overlap(box, nearest.box) > 0.75
        assert similarity(candidates.glyphs[nearest.glyph], digit) > 0.8


def test_segment_decoded_downscaled_boxes_refer_to_size(digits: Any) -> None:
    page, _ = draw_number([digits.one(2)], 0)
    small = boxes_of(images.segment(page))
    large = boxes_of(images.segment(page, size=(480, 1920)))
    assert [tuple(3 * length for length in box) for box in small] == large


def test_segment_small_picture_boxes_are_within(digits: Any) -> None:
    candidates = images.segment(digits.one(4))
    assert all(left >= 0 and left + width <= 28 for left, _, width, _ in boxes_of(candidates))


def test_segment_normalized_digit_is_a_candidate(digits: Any) -> None:
    glyphs = images.segment(digits.one(4)).glyphs
    assert any(np.array_equal(glyph, digits.one(4)) for glyph in glyphs)


def test_segment_many_specks_is_bounded() -> None:
    noise = np.random.default_rng(0).random((480, 640)) < 0.05
    grown = cv2.dilate(noise.astype(np.uint8), np.ones((5, 5), np.uint8))
    assert len(images.segment(255 - 255 * grown).glyphs) <= 256


@pytest.mark.parametrize("shape", [(200, 300), (28, 28), (200, 300, 3)])
def test_segment_blank_picture_has_one_black_glyph_and_no_layers(shape: tuple[int, ...]) -> None:
    found = images.segment(np.full(shape, 200, np.uint8))
    assert found.glyphs.shape == (1, 28, 28)
    assert not found.glyphs.any()
    assert found.layers == ()


@pytest.mark.parametrize(("has_other", "is_cut"), [(True, True), (False, False)])
def test_segment_narrow_touching_pair_is_cut_beside_other_digit(
    digits: Any, has_other: bool, is_cut: bool
) -> None:
    page = np.full((160, 320), 230, np.float32)
    for column in (40, 92):
        cv2.line(page, (column, 50), (column, 110), 50, 5)
    cv2.line(page, (40, 80), (92, 80), 50, 3)
    if has_other:
        crop = cv2.resize(crop_digit(digits.one(2)), (40, 60), interpolation=cv2.INTER_CUBIC)
        page[50:110, 150:190] -= 0.7 * crop
    assert any(candidate.is_piece for candidate in all_of(images.segment(photograph(page)))) is is_cut
