"""Shadows and light on a photograph, which are no ink."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from tests.client.conftest import Pixels, assert_same_digit, photographed


@pytest.mark.parametrize("blur", [2, 12])
def test_the_shadow_of_a_hand_is_no_ink(blur: int, page: Pixels, seven: Pixels) -> None:
    shadow = np.zeros(page.shape, np.float32)
    cv2.ellipse(shadow, (120, 390), (110, 190), 10, 0, 360, 1, -1)
    shaded = page * (1 - 0.35 * cv2.GaussianBlur(shadow, (0, 0), blur))
    assert_same_digit(images.normalise(np.rint(shaded).astype(np.uint8)), seven)


@pytest.mark.parametrize("where", [(280, 120), (320, 200)])
def test_ink_in_the_light_of_a_lamp_is_ink(where: tuple[int, int], page: Pixels, seven: Pixels) -> None:
    row, column = np.indices(page.shape)
    light = 70 * np.exp(-((row - where[1]) ** 2 + (column - where[0]) ** 2) / 100**2)
    assert_same_digit(images.normalise(photographed(0.75 * page + light)), seven)


@pytest.mark.parametrize("where", [(200, 160), (240, 240)])
def test_nor_is_the_light_of_a_lamp_that_is_stronger_than_ink(
    where: tuple[int, int], page: Pixels, seven: Pixels
) -> None:
    lit = cv2.GaussianBlur(cv2.circle(np.zeros(page.shape, np.float32), where, 40, 1, -1), (0, 0), 15)
    assert_same_digit(images.normalise(photographed(0.6 * page + 120 * lit)), seven)


def test_the_edge_of_a_shadow_is_no_ink(page: Pixels, seven: Pixels) -> None:
    shaded = page.astype(np.float32)
    shaded[np.tri(400, 500, k=-60) > 0] *= 0.6
    assert_same_digit(images.normalise(np.rint(shaded).astype(np.uint8)), seven)


def test_nor_is_a_shadow_in_the_middle(page: Pixels, seven: Pixels) -> None:
    shadow = np.zeros(page.shape, np.float32)
    cv2.ellipse(shadow, (150, 230), (90, 140), 30, 0, 360, 1, -1)
    shaded = page * (1 - 0.4 * cv2.GaussianBlur(shadow, (0, 0), 4))
    assert_same_digit(images.normalise(photographed(shaded)), seven)


def test_nor_is_one_on_most_of_the_page(page: Pixels, seven: Pixels) -> None:
    shadow = cv2.circle(np.zeros(page.shape, np.float32), (230, 250), 200, 1, -1)
    shaded = page * (1 - 0.3 * cv2.GaussianBlur(shadow, (0, 0), 3))
    assert_same_digit(images.normalise(photographed(shaded)), seven)


@pytest.mark.parametrize("label", [0, 3])
def test_nor_is_one_across_a_bold_digit(label: int, digits: Any) -> None:
    digit = cv2.resize(digits.one(label), (280, 280), interpolation=cv2.INTER_CUBIC)
    bold = cv2.dilate(digit, np.ones((9, 9), np.uint8))
    page = np.full((400, 500), 215, np.float32)
    page[60:340, 120:400] -= bold * np.float32(0.6)
    shadow = cv2.circle(np.zeros(page.shape, np.float32), (400, 200), 110, 1, -1)
    shaded = page * (1 - 0.3 * cv2.GaussianBlur(shadow, (0, 0), 4))
    assert_same_digit(images.normalise(photographed(shaded)), images.normalise(bold))


def test_nor_is_one_nearly_as_dark_as_the_ink(page: Pixels, seven: Pixels) -> None:
    shaded = page.astype(np.float32)
    shaded[np.tri(400, 500, k=-180) > 0] *= 0.35
    assert_same_digit(images.normalise(np.rint(shaded).astype(np.uint8)), seven)


def test_nor_is_a_strip_of_light_that_differs_more_than_the_ink(page: Pixels, seven: Pixels) -> None:
    corners = np.array([(30, 0), (210, 0), (0, 390), (0, 120)])
    strip = cv2.fillPoly(np.zeros(page.shape, np.uint8), [corners], 1)
    assert_same_digit(images.normalise(photographed(np.where(strip, 235, 0.3 * page + 60))), seven)
