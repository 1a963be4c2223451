"""Shading removal: shadows, glare and strips of light on photographs are ignored."""

from typing import Any

import cv2
import numpy as np
import pytest

from digit_client import images
from tests.client.images.pictures import Pixels, assert_same_digit, photograph


@pytest.mark.parametrize("blur", [2, 12])
def test_normalise_hand_shadow_is_ignored(blur: int, page: Pixels, seven: Pixels) -> None:
    shadow = np.zeros(page.shape, np.float32)
    cv2.ellipse(shadow, (120, 390), (110, 190), 10, 0, 360, 1, -1)
    shaded = page * (1 - 0.35 * cv2.GaussianBlur(shadow, (0, 0), blur))
    assert_same_digit(images.normalise(np.rint(shaded).astype(np.uint8)), seven)


@pytest.mark.parametrize("center", [(280, 120), (320, 200)])
def test_normalise_ink_in_glare_is_kept(center: tuple[int, int], page: Pixels, seven: Pixels) -> None:
    row, column = np.indices(page.shape)
    glare = 70 * np.exp(-((row - center[1]) ** 2 + (column - center[0]) ** 2) / 100**2)
    assert_same_digit(images.normalise(photograph(0.75 * page + glare)), seven)


@pytest.mark.parametrize("center", [(200, 160), (240, 240)])
def test_normalise_glare_stronger_than_ink_is_ignored(
    center: tuple[int, int], page: Pixels, seven: Pixels
) -> None:
    glare = cv2.GaussianBlur(cv2.circle(np.zeros(page.shape, np.float32), center, 40, 1, -1), (0, 0), 15)
    assert_same_digit(images.normalise(photograph(0.6 * page + 120 * glare)), seven)


# A shadow of brightness 0.35 is nearly as dark as the ink.
@pytest.mark.parametrize(("diagonal", "brightness"), [(-60, 0.6), (-180, 0.35)])
def test_normalise_shadow_edge_is_ignored(
    diagonal: int, brightness: float, page: Pixels, seven: Pixels
) -> None:
    shaded = page.astype(np.float32)
    shaded[np.tri(400, 500, k=diagonal) > 0] *= brightness
    assert_same_digit(images.normalise(np.rint(shaded).astype(np.uint8)), seven)


def test_normalise_shadow_in_the_middle_is_ignored(page: Pixels, seven: Pixels) -> None:
    shadow = np.zeros(page.shape, np.float32)
    cv2.ellipse(shadow, (150, 230), (90, 140), 30, 0, 360, 1, -1)
    shaded = page * (1 - 0.4 * cv2.GaussianBlur(shadow, (0, 0), 4))
    assert_same_digit(images.normalise(photograph(shaded)), seven)


def test_normalise_shadow_on_most_of_page_is_ignored(page: Pixels, seven: Pixels) -> None:
    shadow = cv2.circle(np.zeros(page.shape, np.float32), (230, 250), 200, 1, -1)
    shaded = page * (1 - 0.3 * cv2.GaussianBlur(shadow, (0, 0), 3))
    assert_same_digit(images.normalise(photograph(shaded)), seven)


@pytest.mark.parametrize("label", [0, 3])
def test_normalise_shadow_across_bold_digit_is_ignored(label: int, digits: Any) -> None:
    large = cv2.resize(digits.one(label), (280, 280), interpolation=cv2.INTER_CUBIC)
    bold = cv2.dilate(large, np.ones((9, 9), np.uint8))
    page = np.full((400, 500), 215, np.float32)
    page[60:340, 120:400] -= bold * np.float32(0.6)
    shadow = cv2.circle(np.zeros(page.shape, np.float32), (400, 200), 110, 1, -1)
    shaded = page * (1 - 0.3 * cv2.GaussianBlur(shadow, (0, 0), 4))
    assert_same_digit(images.normalise(photograph(shaded)), images.normalise(bold))


def test_normalise_strip_of_light_stronger_than_ink_is_ignored(page: Pixels, seven: Pixels) -> None:
    corners = np.array([(30, 0), (210, 0), (0, 390), (0, 120)])
    strip = cv2.fillPoly(np.zeros(page.shape, np.uint8), [corners], 1)
    assert_same_digit(images.normalise(photograph(np.where(strip, 235, 0.3 * page + 60))), seven)
