"""Contact sheet of pages with the boxes that the reader finds."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from digit_core.reading.lines import digits_and_signs
from digit_core.reading.peaks import SIGN, Peaks
from digit_training.reader.pages import Page

COLUMNS, ROWS = 5, 10
COUNT = COLUMNS * ROWS
"""Number of pages on a sheet."""
_SCALE = 2
_FOUND, _DOUBTFUL = (0, 150, 0), (0, 140, 255)
"""Colours, blue, green and red."""


def save(pages: Sequence[Page], found: Sequence[Peaks], path: Path) -> None:
    """Write the pages to a PNG file, with a box and a digit for each peak; doubtful ones in orange."""
    shown = []
    for page, peaks in zip(pages, found, strict=True):
        large = cv2.resize(page.pixels, (0, 0), fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_NEAREST)
        picture = cv2.cvtColor(large, cv2.COLOR_GRAY2BGR)
        digits, _ = digits_and_signs(peaks)
        for score, classes, box in zip(digits.scores, digits.classes, digits.boxes, strict=True):
            left, top, width, height = (_SCALE * box).astype(int).tolist()
            color = _FOUND if score >= 0.5 else _DOUBTFUL
            cv2.rectangle(picture, (left, top), (left + width, top + height), color, 1)
            label = str(int(classes[:SIGN].argmax()))
            cv2.putText(picture, label, (left + 1, top + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1)
        shown.append(cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(160, 160, 160)))
    blank = np.full_like(shown[0], 160)
    shown += [blank] * (-len(shown) % COLUMNS)
    rows = [np.hstack(shown[start : start + COLUMNS]) for start in range(0, len(shown), COLUMNS)]
    cv2.imwrite(str(path), np.vstack(rows))
