"""Sheets of paper on a table, and what only looks like one."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images, sheets
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
    found = sheets.sheet(paper)
    assert found is not None
    assert np.mean(found != whole) < 0.02
    assert not sheets.inside(found, 5)[~whole].any()


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
    assert sheets.sheet(shape() > 0) is None
