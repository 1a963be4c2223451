"""Crops: drawings, and pictures on which the digit has to be looked for."""

from typing import Any

import numpy as np
import pytest

from digit_core import images
from digit_core.images.crops import crop_digit
from tests.core.images.pictures import Pixels, assert_same_digit, photograph


def test_crop_drawing_of_one_figure_on_flat_background_is_the_digit(page: Pixels, seven: Pixels) -> None:
    for drawing in (page, 255 - page, np.clip(page.astype(int) + 3, 0, 255).astype(np.uint8)):
        crop = images.crop_drawing(images.to_page(drawing))
        assert crop is not None
        assert_same_digit(crop, seven)


def test_crop_drawing_leaves_other_pictures_to_the_reader(page: Pixels) -> None:
    underlined = page.copy()
    underlined[300:306, 200:450] = 40
    shaded = np.rint(page * np.linspace(0.5, 1, page.shape[1])[None, :]).astype(np.uint8)
    for picture in (underlined, shaded, np.full((200, 300), 255, np.uint8)):
        assert images.crop_drawing(images.to_page(picture)) is None


def test_crop_picture_without_ink_is_black() -> None:
    assert not images.crop_picture(images.to_page(np.full((200, 300), 90, np.uint8))).any()


@pytest.mark.parametrize("shade", [1.0, 0.5])
def test_crop_digit_in_a_box_is_the_digit(page: Pixels, seven: Pixels, shade: float) -> None:
    levels = page * np.linspace(shade, 1, page.shape[1])[None, :]
    crop = crop_digit(images.to_page(photograph(levels.astype(np.float32))), _box_of(page))
    assert_same_digit(crop, seven)


def test_crop_digit_of_blank_paper_is_black() -> None:
    page = images.to_page(np.full((200, 300), 200, np.uint8))
    assert not crop_digit(page, np.array([10, 10, 60, 90], np.float32)).any()
    assert not crop_digit(page, np.array([500, 10, 60, 90], np.float32)).any()


def _box_of(page: Pixels) -> Any:
    rows, columns = np.nonzero(page < 130)
    left, top = columns.min(), rows.min()
    return np.array([left, top, np.ptp(columns) + 1, np.ptp(rows) + 1], np.float32)
