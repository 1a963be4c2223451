"""Normalisation to MNIST's form: pages, drawings, tight crops, and normalised digits."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from digit_core import images
from tests.core.images.pictures import MIN_SIMILARITY, Pixels, assert_same_digit, crop_digit, similarity


def test_normalise_mnist_digit_returns_same_pixels(digits: Any) -> None:
    for image in digits.images[:1000]:
        assert np.array_equal(images.normalise(image), image)
        assert np.array_equal(images.normalise(255 - image), image)
        assert np.array_equal(images.normalise(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)), image)


@pytest.mark.parametrize("label", range(10))
def test_normalise_digit_on_page_is_read(label: int, digits: Any) -> None:
    digit = digits.one(label)
    large = cv2.resize(digit, (140, 140), interpolation=cv2.INTER_CUBIC)
    page = 230 - np.pad(large, ((30, 250), (200, 40))) // 2
    assert_same_digit(images.normalise(page), digit)


@pytest.mark.parametrize(
    "change",
    [
        lambda page: 255 - page,
        lambda page: cv2.cvtColor(page, cv2.COLOR_GRAY2RGB),
        lambda page: page[:, :, None],
        lambda page: page / 255,
        lambda page: page.astype(np.uint16) * 257,
        lambda page: cv2.resize(page, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA),
        lambda page: cv2.resize(page, None, fx=3, fy=3),
        lambda page: page * np.linspace(0.5, 1, page.shape[1])[None, :],
        lambda page: np.clip(page + np.random.default_rng(0).normal(0, 8, page.shape), 0, 255),
    ],
    ids=["inverted", "colour", "channel", "floats", "16-bit", "small", "large", "shade", "noise"],
)
def test_normalise_changed_page_is_read(change: Callable[[Any], Any], page: Pixels, seven: Pixels) -> None:
    assert_same_digit(images.normalise(change(page)), seven)


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_normalise_transparent_drawing_of_any_ink_is_read(
    ink: tuple[int, int, int], page: Pixels, seven: Pixels
) -> None:
    drawing = np.zeros((*page.shape, 4), np.uint8)
    drawing[:, :, :3] = ink
    drawing[:, :, 3] = np.clip((215 - page.astype(int)) * 1.5, 0, 255)
    assert_same_digit(images.normalise(drawing), seven)


@pytest.mark.parametrize("squares", [False, True], ids=["ruled", "squared"])
def test_normalise_printed_lines_are_ignored(squares: bool, page: Pixels, seven: Pixels) -> None:
    page[17::36] = np.minimum(page[17::36], 150)
    if squares:
        page[:, 11::36] = np.minimum(page[:, 11::36], 150)
    assert_same_digit(images.normalise(page), seven)


def test_normalise_separate_stroke_is_kept(digits: Any) -> None:
    five = digits.one(5).copy()
    five[10:12] = 0
    page = 230 - np.pad(cv2.resize(five, (140, 140)), ((60, 100), (90, 70))) // 2
    found = images.normalise(page)
    assert_same_digit(found, five)
    assert cv2.connectedComponents((found > 64).astype(np.uint8))[0] >= 3


def test_normalise_page_scales_and_centres_as_in_mnist(page: Pixels) -> None:
    found = images.normalise(page)
    rows, columns = np.nonzero(found)
    assert max(np.ptp(rows), np.ptp(columns)) == 19
    mass = found.astype(float)
    center = [(mass.sum(axis=1 - axis) @ np.arange(28)) / mass.sum() for axis in (0, 1)]
    assert center == pytest.approx([14, 14], abs=0.51)
    assert found.max() == 255


def test_normalise_bar_returns_one() -> None:
    page = np.full((200, 200), 255, np.uint8)
    page[40:160, 95:105] = 0
    one = images.normalise(page)
    assert np.flatnonzero(one.max(axis=1) > 200).size == 20
    assert np.flatnonzero(one.any(axis=0)).size in (2, 3)


@pytest.mark.parametrize("label", [0, 3, 4, 5, 6, 7, 8, 9])
def test_normalise_tight_crop_is_not_mistaken_for_paper(label: int, digits: Any) -> None:
    digit = digits.one(label)
    rows, columns = (np.flatnonzero(digit.max(axis=axis) > 127) for axis in (1, 0))
    crop = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert_same_digit(images.normalise(255 - crop), digit)


def test_normalise_specks_are_ignored(page: Pixels, seven: Pixels) -> None:
    page[350:353, 30:33] = 40
    page[20:23, 480:483] = 40
    assert_same_digit(images.normalise(page), seven)


@pytest.mark.parametrize(
    "blank",
    [
        np.zeros((28, 28), np.uint8),
        np.full((28, 28), 255, np.uint8),
        np.full((300, 200, 3), 180, np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.tile(np.linspace(120, 220, 300).astype(np.uint8), (200, 1)),
        np.random.default_rng(0).normal(200, 4, (300, 300)).astype(np.uint8),
        np.zeros((1, 1), np.uint8),
    ],
    ids=["black", "white", "colour", "transparent", "shade", "noise", "pixel"],
)
def test_normalise_blank_picture_raises_no_ink(blank: Pixels) -> None:
    with pytest.raises(images.NoInkError):
        images.normalise(blank)


@settings(max_examples=40)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]))))
def test_normalise_any_picture_returns_digit_or_raises_no_ink(image: Pixels) -> None:
    try:
        found = images.normalise(image)
    except images.NoInkError:
        return
    assert found.shape == (28, 28)
    assert found.dtype == np.uint8
    assert found.max() > 0


@pytest.mark.parametrize(("side", "right", "down"), [(28, 0, 0), (12, 0, 0), (20, 4, -3), (12, -8, 8)])
@pytest.mark.parametrize("label", range(10))
def test_normalise_scaled_or_shifted_28_pixels_are_read(
    label: int, side: int, right: int, down: int, digits: Any
) -> None:
    digit = digits.one(label)
    crop = crop_digit(digit)
    scale = side / max(crop.shape)
    crop = cv2.resize(crop, None, fx=scale, fy=scale)
    row, column = (28 - crop.shape[0]) // 2 + down, (28 - crop.shape[1]) // 2 + right
    row, column = min(max(row, 0), 28 - crop.shape[0]), min(max(column, 0), 28 - crop.shape[1])
    picture = np.zeros((28, 28), np.uint8)
    picture[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
    assert_same_digit(images.normalise(picture), digit)
    assert_same_digit(images.normalise(255 - picture), digit)


@pytest.mark.parametrize("peak", [15, 16, 255])
def test_normalise_small_scan_of_few_levels_is_read(peak: int, seven: Pixels) -> None:
    small = cv2.resize(seven[4:24, 4:24], (8, 8), interpolation=cv2.INTER_AREA)
    assert_same_digit(images.normalise(np.rint(small / small.max() * peak)), seven)


@pytest.mark.parametrize(("height", "least"), [(8, 95), (12, 99)])
def test_normalise_small_tight_scan_is_read(height: int, least: int, digits: Any) -> None:
    for inverted in (False, True):
        read = 0
        for digit in digits.images[:100]:
            crop = crop_digit(digit)
            size = (max(3, round(crop.shape[1] * height / crop.shape[0])), height)
            small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
            found = images.normalise(255 - small if inverted else small)
            read += similarity(found, digit) > MIN_SIMILARITY
        assert read >= least


def test_are_normalized_agrees_with_is_normalized(digits: Any) -> None:
    normalized = digits.images[:50]
    shifted = np.roll(normalized, 3, axis=2)
    empty = np.zeros_like(normalized[:1])
    pictures = np.concatenate((normalized, 255 - normalized, normalized // 3, shifted, empty))
    assert list(images.are_normalized(pictures)) == [images.is_normalized(picture) for picture in pictures]
    assert images.are_normalized(pictures).sum() == 50


def test_is_normalized_sizes_as_in_mnist() -> None:
    squares = []
    for side in (17, 18, 19, 20, 21):
        square = np.zeros((28, 28), np.uint8)
        square[14 - side // 2 :, 14 - side // 2 :][:side, :side] = 255
        squares.append(square)
    assert [images.is_normalized(square) for square in squares] == [False, False, True, True, False]


def test_fit_to_mnist_canvas_fine_stroke_is_thickened() -> None:
    ink = np.zeros((200, 100), np.float32)
    ink[:, :2] = ink[-2:] = 1
    canvas = images.fit_to_mnist_canvas(ink)
    assert (canvas[10] > 100).sum() >= 2
    assert (canvas[:, 14] > 100).sum() >= 2


def test_fit_to_mnist_canvas_ink_at_one_end_stays_within() -> None:
    ink = np.zeros((100, 60), np.float32)
    ink[:20] = ink[:, 28:32] = 1
    rows = np.flatnonzero(images.fit_to_mnist_canvas(ink).any(axis=1))
    assert (rows[0], rows[-1]) == (8, 27)
