"""Contact sheets: pictures with what is on them and what was read, errors first."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.numbers.readers import Answer
from digit_core import images

_WIDTH, _HEIGHT, _CAPTION = 220, 130, 34
_COLUMNS, _MOST = 6, 48


@dataclass(frozen=True)
class Result:
    """A picture, the text on it (None for none), and the answer."""

    file: bytes
    expected: str | None
    answer: Answer

    @property
    def is_right(self) -> bool:
        """True if reading gives the text, and predicting gives a lone digit or refuses a picture of none."""
        expected = self.expected
        if self.answer.text != expected:
            return False
        return len(expected or "") > 1 or self.answer.digit == (int(expected) if expected else None)


def write_sheet(path: Path, results: list[Result]) -> None:
    """Write the contact sheet of a family as PNG: at most 48 pictures, errors first and on red."""
    shown = sorted(results, key=lambda result: result.is_right)[:_MOST]
    cells = [_cell(result) for result in shown]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % _COLUMNS)
    rows = [np.hstack(cells[start : start + _COLUMNS]) for start in range(0, len(cells), _COLUMNS)]
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def _cell(result: Result) -> NDArray[np.uint8]:
    cell = np.full(
        (_HEIGHT + _CAPTION, _WIDTH, 3), (70, 70, 70) if result.is_right else (165, 40, 40), np.uint8
    )
    picture = _thumbnail(images.decode(result.file))
    cell[2 : 2 + picture.shape[0], 2 : 2 + picture.shape[1]] = picture
    answer = result.answer
    predicted = "-" if answer.digit is None else f"{answer.digit} {answer.digit_confidence:.2f}"
    for row, caption in enumerate((_shown(result.expected), f"{_shown(answer.text)}  ({predicted})")):
        place = (4, _HEIGHT + 12 + 16 * row)
        cv2.putText(cell, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return cell


def _shown(text: str | None) -> str:
    return "-" if text is None else text.replace("\n", " / ")


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if rgb.shape[2] == 4:
        alpha = rgb[:, :, 3:] / 255
        rgb = (rgb[:, :, :3] * alpha + 128 * (1 - alpha)).astype(np.uint8)
    scale = min((_WIDTH - 4) / rgb.shape[1], (_HEIGHT - 4) / rgb.shape[0])
    size = (max(1, int(rgb.shape[1] * scale)), max(1, int(rgb.shape[0] * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
