"""Synthetic pictures of numbers."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_CELL, _MARGIN = 40, 20


def draw_lines(*lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Draw lines of digits, uint8 [28, 28] each, in black on white: uint8 [h, w].

    Line i and digit j fill at most the square of 80 pixels that begins at row 40 + 80 i and column 40 + 80 j.
    """
    height = 2 * _MARGIN + _CELL * len(lines)
    width = 2 * _MARGIN + _CELL * max(map(len, lines))
    page = np.zeros((height, width), np.uint8)
    inset = (_CELL - 28) // 2
    for row, line in enumerate(lines):
        for column, digit in enumerate(line):
            top, left = (_MARGIN + _CELL * place + inset for place in (row, column))
            page[top : top + 28, left : left + 28] = digit
    return np.asarray(255 - cv2.resize(page, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)


def draw_number(digits: Any, *lines: str) -> NDArray[np.uint8]:
    """Draw lines of typical digits, such as "27", as `draw_lines` does."""
    return draw_lines(*([digits.one(int(digit)) for digit in line] for line in lines))


def draw_text(digits: Any, text: str) -> NDArray[np.uint8]:
    """Draw the ink of a text of digits, slashes and points, light on dark: uint8 [56, w]."""
    side = 56
    cells = []
    for place, character in enumerate(text):
        if character.isdigit():
            digit = digits.typical(int(character), 5)[place % 5]
            cells.append(cv2.resize(digit, (side, side), interpolation=cv2.INTER_CUBIC)[:, 7:-7])
            continue
        cell = np.zeros((side, side // 2), np.uint8)
        if character == "/":
            cv2.line(cell, (22, 9), (5, 46), 230, 3, cv2.LINE_AA)
        else:
            cv2.circle(cell, (14, 44), 3, 230, -1, cv2.LINE_AA)
        cells.append(cell)
    return np.asarray(np.hstack(cells), np.uint8)
