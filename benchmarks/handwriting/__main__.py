"""How many pictures of each family the service reads right: `python -m benchmarks.handwriting MNIST.npz`.

Asks the gateway at DIGITS_URL over HTTP. Writes a table to the screen and a contact sheet of the families,
with the first mistakes of each, to a PNG file.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.handwriting.families import ALSO_EMPTY, FAMILIES
from benchmarks.handwriting.pen import Digit, stroke
from digit_client import DigitClient, NoDigitError, images

_CELL = 84
_COLUMNS = 14
# Of a digit's height. Six in a hundred are bolder: loops are filled, and the middle lines mislead.
_WIDEST = 0.17


@dataclass(frozen=True)
class Reading:
    """A picture and whether it was read right."""

    file: bytes
    right: bool


def main() -> None:
    """Read the arguments, ask, and print a row for each family."""
    arguments = _arguments()
    with np.load(arguments.mnist) as mnist:
        digits, labels = mnist["x_test"], mnist["y_test"]
    chosen = _chosen(digits, arguments.count, arguments.seed)
    written = list(zip(digits[chosen], labels[chosen].tolist(), strict=True))
    empty = [(np.zeros_like(digits[0]), None)] * arguments.count
    strips, rates = [], []
    with DigitClient(timeout=60) as client:
        for name in FAMILIES:
            readings = list(_read(client, name, written, arguments.seed))
            rates.append(_rate(readings))
            sys.stdout.write(f"| {name} | {rates[-1]:.1%} |\n")
            strips.append(_strip(readings))
        sys.stdout.write(f"| *mean* | {np.mean(rates):.1%} |\n")
        for name in ALSO_EMPTY:
            readings = list(_read(client, name, empty, arguments.seed))
            sys.stdout.write(f"| {name}, nothing written | {_rate(readings):.1%} refused |\n")
            strips.append(_strip(readings))
    cv2.imwrite(str(arguments.sheet), cv2.cvtColor(np.vstack(strips), cv2.COLOR_RGB2BGR))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy on hard pictures of MNIST's test digits.")
    parser.add_argument("mnist", type=Path, help="Keras's mnist.npz")
    parser.add_argument("--count", type=int, default=500, help="digits in each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, default=Path("handwriting.png"), help="the contact sheet")
    return parser.parse_args()


def _chosen(digits: NDArray[np.uint8], count: int, seed: int) -> list[int]:
    """So many digits by chance, of those that have lines which a thinner pen could follow."""
    order = np.random.default_rng(seed).permutation(len(digits)).tolist()
    return list(islice((number for number in order if stroke(digits[number]) < _WIDEST), count))


def _read(
    client: DigitClient, name: str, examples: Sequence[tuple[Digit, int | None]], seed: int
) -> Iterator[Reading]:
    family = list(FAMILIES).index(name)
    for number, (digit, label) in enumerate(examples):
        file = FAMILIES[name](digit, np.random.default_rng([seed, family, number]))
        yield Reading(file, _answer(client, file) == label)


def _answer(client: DigitClient, file: bytes) -> int | None:
    """The digit, or none where the service says that there is none."""
    try:
        return client.predict(file).digit
    except NoDigitError:
        return None


def _rate(readings: list[Reading]) -> float:
    return sum(reading.right for reading in readings) / len(readings)


def _strip(readings: list[Reading]) -> NDArray[np.uint8]:
    """Some that were read right, then mistakes on red; the picture above, what the network saw below."""
    right = [reading for reading in readings if reading.right][: _COLUMNS - 6]
    wrong = [reading for reading in readings if not reading.right][: _COLUMNS - len(right)]
    cells = [_cell(reading) for reading in right + wrong]
    cells += [np.zeros_like(cells[0])] * (_COLUMNS - len(cells))
    return np.hstack(cells)


def _cell(reading: Reading) -> NDArray[np.uint8]:
    ground = (90, 90, 90) if reading.right else (170, 40, 40)
    cell = np.full((2 * _CELL, _CELL, 3), ground, np.uint8)
    pixels = images.decode(reading.file)
    try:
        seen = images.normalise(pixels)
    except NoDigitError:
        seen = np.zeros((28, 28), np.uint8)
    top = _shown(pixels)
    cell[2 : 2 + top.shape[0], 2 : 2 + top.shape[1]] = top
    bottom = cv2.resize(seen, (_CELL - 4, _CELL - 4), interpolation=cv2.INTER_NEAREST)
    cell[_CELL + 2 : -2, 2:-2] = bottom[:, :, None]
    return cell


def _shown(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if rgb.shape[2] == 4:
        alpha = rgb[:, :, 3:] / 255
        rgb = (rgb[:, :, :3] * alpha + 128 * (1 - alpha)).astype(np.uint8)
    scale = (_CELL - 4) / max(rgb.shape[:2])
    size = (max(1, int(rgb.shape[1] * scale)), max(1, int(rgb.shape[0] * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


if __name__ == "__main__":
    main()
