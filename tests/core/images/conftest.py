"""Fixtures of the image tests: a digit, and the same digit on a page."""

from typing import Any

import pytest

from tests.core.images.pictures import Pixels, draw_page


@pytest.fixture
def seven(digits: Any) -> Pixels:
    """A seven as in MNIST: uint8 [28, 28], light on dark."""
    pixels: Pixels = digits.one(7)
    return pixels


@pytest.fixture
def page(seven: Pixels) -> Pixels:
    """The same seven in dark grey on a light grey page: uint8 [400, 500]."""
    return draw_page(seven)
