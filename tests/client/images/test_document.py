"""Document detection: sheets of paper on a table, and other regions."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import document
from tests.client.images.pictures import Pixels, assert_same_digit, photograph

SHAPE = (400, 500)
BROAD = ((210, 20), (430, 40), (425, 280), (200, 270))
TALL = ((262, 10), (412, 4), (408, 390), (258, 394))


def disc() -> Pixels:
    return np.asarray(cv2.circle(np.zeros(SHAPE, np.uint8), (250, 200), 150, 1, -1))


def ring() -> Pixels:
    return np.asarray(cv2.circle(np.zeros(SHAPE, np.uint8), (250, 200), 150, 1, 60))


def letter_l() -> Pixels:
    corners = np.array([[100, 50], [160, 50], [160, 300], [400, 300], [400, 360], [100, 360]])
    return np.asarray(cv2.fillPoly(np.zeros(SHAPE, np.uint8), [corners], 1))


def speck() -> Pixels:
    return np.asarray(cv2.rectangle(np.zeros(SHAPE, np.uint8), (200, 200), (240, 240), 1, -1))


def whole_picture() -> Pixels:
    return np.ones(SHAPE, np.uint8)


@pytest.mark.parametrize("corners", [BROAD, TALL])
@pytest.mark.parametrize("table", [40, 130, 170])
def test_normalise_digit_on_sheet_is_read(corners: Any, table: int, page: Pixels, seven: Pixels) -> None:
    sheet = cv2.fillPoly(np.zeros(page.shape, np.uint8), [np.array(corners)], 1)
    assert_same_digit(images.normalise(photograph(np.where(sheet, page, table).astype(np.float32))), seven)


@pytest.mark.parametrize("label", [2, 4])
def test_normalise_bold_digit_on_sheet_is_read(label: int, digits: Any) -> None:
    large = cv2.resize(digits.one(label), (280, 280), interpolation=cv2.INTER_CUBIC)
    bold = cv2.dilate(large, np.ones((17, 17), np.uint8))
    sheet = np.full((330, 280), 225, np.float32)
    sheet[25:305] -= bold * np.float32(0.6)
    table = cv2.copyMakeBorder(sheet, 20, 20, 25, 25, cv2.BORDER_CONSTANT, value=70)
    assert_same_digit(images.normalise(photograph(table)), images.normalise(bold))


def test_find_sheet_with_hole_and_attachment_returns_rectangle() -> None:
    paper = np.zeros(SHAPE, np.bool_)
    paper[100:300, 80:420] = True
    paper[150:250, 200:220] = False
    paper[195:199, 420:480] = True
    rectangle = np.zeros_like(paper)
    rectangle[100:300, 80:420] = True
    sheet = document.find_sheet(paper)
    assert sheet is not None
    assert np.mean(sheet != rectangle) < 0.02
    assert not document.erode(sheet, 5)[~rectangle].any()


def test_is_written_sheet_with_hole_returns_true() -> None:
    paper = np.zeros(SHAPE, np.bool_)
    paper[20:380, 80:420] = True
    assert not document.is_written_sheet(paper)
    paper[100:300, 200:260] = False
    assert document.is_written_sheet(paper)


@pytest.mark.parametrize("region", [disc, ring, letter_l, speck, whole_picture])
def test_find_sheet_other_region_returns_none(region: Callable[[], Pixels]) -> None:
    assert document.find_sheet(region() > 0) is None
    assert not document.is_written_sheet(region() > 0)
