"""Pictures that several clients are asked about."""

from typing import Any

import numpy as np
import pytest

from tests.core.drawn_numbers import draw_lines


@pytest.fixture(scope="session")
def number(digits: Any) -> np.ndarray:
    """Picture with two lines: 17 and 4."""
    return draw_lines([digits.one(1), digits.one(7)], [digits.one(4)])
