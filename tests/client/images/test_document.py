"""Sheets of paper on a table, and what only looks like one."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from digit_client.images import document
from tests.client.conftest import Pixels, assert_same_digit, photographed

BROAD = ((210, 20), (430, 40), (425, 280), (200, 270))
TALL = ((262, 10), (412, 4), (408, 390), (258, 394))


@pytest.mark.parametrize("corners", [BROAD, TALL])
@pytest.mark.parametrize("table", [40, 130, 170])
def test_the_digit_on_a_sheet_is_found(corners: Any, table: int, page: Pixels, seven: Pixels) -> None:
    sheet = cv2.fillPoly(np.zeros(page.shape, np.uint8), [np.array(corners)], 1)
    assert_same_digit(images.normalise(photographed(np.where(sheet, page, table).astype(np.float32))), seven)


def test_a_sheet_is_its_paper_and_what_is_written_on_it() -> None:
    paper = np.zeros((400, 500), np.bool_)
    paper[100:300, 80:420] = True
    paper[150:250, 200:220] = False
    # Something that hangs on it.
    paper[195:199, 420:480] = True
    whole = np.zeros_like(paper)
    whole[100:300, 80:420] = True
    found = document.sheet(paper)
    assert found is not None
    assert np.mean(found != whole) < 0.02
    assert not document.inside(found, 5)[~whole].any()


def disc() -> Pixels:
    return np.asarray(cv2.circle(np.zeros((400, 500), np.uint8), (250, 200), 150, 1, -1))


def ring() -> Pixels:
    return np.asarray(cv2.circle(np.zeros((400, 500), np.uint8), (250, 200), 150, 1, 60))


def letter() -> Pixels:
    corners = np.array([[100, 50], [160, 50], [160, 300], [400, 300], [400, 360], [100, 360]])
    return np.asarray(cv2.fillPoly(np.zeros((400, 500), np.uint8), [corners], 1))


def speck() -> Pixels:
    return np.asarray(cv2.rectangle(np.zeros((400, 500), np.uint8), (200, 200), (240, 240), 1, -1))


def whole() -> Pixels:
    return np.ones((400, 500), np.uint8)


@pytest.mark.parametrize("shape", [disc, ring, letter, speck, whole])
def test_what_is_no_sheet(shape: Any) -> None:
    assert document.sheet(shape() > 0) is None


@pytest.mark.parametrize("label", [2, 4])
def test_a_sheet_around_a_bold_digit_is_no_digit(label: int, digits: Any) -> None:
    digit = digits.one(label)
    bold = cv2.dilate(
        cv2.resize(digit, (280, 280), interpolation=cv2.INTER_CUBIC), np.ones((17, 17), np.uint8)
    )
    sheet = np.full((330, 280), 225, np.float32)
    sheet[25:305] -= bold * np.float32(0.6)
    table = cv2.copyMakeBorder(sheet, 20, 20, 25, 25, cv2.BORDER_CONSTANT, value=70)
    assert_same_digit(images.normalise(photographed(table)), images.normalise(bold))


def test_a_sheet_with_holes_is_written_on() -> None:
    paper = np.zeros((400, 500), np.bool_)
    paper[20:380, 80:420] = True
    assert not document.is_written_on(paper)
    paper[100:300, 200:260] = False
    assert document.is_written_on(paper)


@pytest.mark.parametrize("shape", [disc, ring, letter, speck, whole])
def test_what_is_no_sheet_is_not_written_on(shape: Any) -> None:
    assert not document.is_written_on(shape() > 0)
