"""What lies around the paper and is no ink: tables, for one."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from tests.client.conftest import Pixels, assert_same_digit, cut_out, photographed


def test_a_sheet_on_a_table_is_no_digit(page: Pixels, seven: Pixels) -> None:
    table = np.full((800, 900, 3), (60, 90, 110), np.uint8)
    table[250:650, 150:650] = page[:, :, None]
    assert_same_digit(images.normalise(table), seven)


def test_nor_is_a_sheet_that_lies_askew(page: Pixels, seven: Pixels) -> None:
    turned = cv2.getRotationMatrix2D((250, 200), 12, 0.9)
    turned[:, 2] += (200, 200)
    picture = cv2.warpAffine(page, turned, (900, 800), borderValue=70)
    level = cv2.warpAffine(seven, cv2.getRotationMatrix2D((14, 14), 12, 1), (28, 28))
    assert_same_digit(images.normalise(picture), level)


def test_a_table_beside_the_sheet_is_no_digit(page: Pixels, seven: Pixels) -> None:
    page = page.copy()
    page[:, :40] = 70
    assert_same_digit(images.normalise(page), seven)


@pytest.mark.parametrize("label", [0, 2, 3, 8])
def test_paper_is_found_where_there_is_less_of_it_than_of_ink(label: int, digits: Any) -> None:
    large = cv2.resize(digits.one(label), (560, 560), interpolation=cv2.INTER_CUBIC)
    bold = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (45, 45)))
    cut = np.asarray(cut_out(bold) / 255, np.float32)
    paper = 235 * np.linspace(0.7, 1, cut.shape[1], dtype=np.float32)[None, :]
    picture = photographed(paper * (1 - cut) + 60 * cut)
    assert_same_digit(images.normalise(picture), images.normalise(bold))
