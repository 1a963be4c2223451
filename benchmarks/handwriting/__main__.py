"""Accuracy on difficult pictures, by family: `python -m benchmarks.handwriting MNIST.npz`.

Sends the pictures to the gateway at DIGITS_URL over HTTP. Prints a table, and writes a contact sheet of the
families, with the first errors of each, to a PNG file.
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

from benchmarks.handwriting.families import EMPTY_FAMILIES, FAMILIES
from benchmarks.handwriting.pen import Digit, stroke_width
from digit_client import Client
from digit_core import images

_CELL = 84
_COLUMNS = 14
# As a share of a digit's height. 6 % of the digits are bolder, with filled loops and misleading skeletons.
_MAX_STROKE_WIDTH = 0.17


@dataclass(frozen=True)
class Result:
    """A picture, and the correctness of its prediction."""

    file: bytes
    correct: bool


def main() -> None:
    """Print a row for each family, and write the contact sheet."""
    arguments = _arguments()
    with np.load(arguments.mnist) as mnist:
        digits, labels = mnist["x_test"], mnist["y_test"]
    chosen = choose(digits, arguments.count, arguments.seed)
    examples = list(zip(digits[chosen], labels[chosen].tolist(), strict=True))
    empty = [(np.zeros_like(digits[0]), None)] * arguments.count
    strips, accuracies = [], []
    with Client(timeout=60) as client:
        for name in FAMILIES:
            results = list(_predict(client, name, examples, arguments.seed))
            accuracies.append(_accuracy(results))
            sys.stdout.write(f"| {name} | {accuracies[-1]:.1%} |\n")
            strips.append(_strip(results))
        sys.stdout.write(f"| *mean* | {np.mean(accuracies):.1%} |\n")
        for name in EMPTY_FAMILIES:
            results = list(_predict(client, name, empty, arguments.seed))
            sys.stdout.write(f"| {name}, nothing written | {_accuracy(results):.1%} refused |\n")
            strips.append(_strip(results))
    cv2.imwrite(str(arguments.sheet), cv2.cvtColor(np.vstack(strips), cv2.COLOR_RGB2BGR))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy on difficult pictures of MNIST's test digits.")
    parser.add_argument("mnist", type=Path, help="path of mnist.npz, in Keras's layout")
    parser.add_argument("--count", type=int, default=500, help="number of digits in each family")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the choice of digits and of the pictures"
    )
    parser.add_argument(
        "--sheet", type=Path, default=Path("handwriting.png"), help="path of the contact sheet"
    )
    return parser.parse_args()


def choose(digits: NDArray[np.uint8], count: int, seed: int) -> list[int]:
    """Return indexes of random digits whose strokes a thinner pen can follow."""
    order = np.random.default_rng(seed).permutation(len(digits)).tolist()
    thin = (index for index in order if stroke_width(digits[index]) < _MAX_STROKE_WIDTH)
    return list(islice(thin, count))


def _predict(
    client: Client, name: str, examples: Sequence[tuple[Digit, int | None]], seed: int
) -> Iterator[Result]:
    family = list(FAMILIES).index(name)
    for number, (digit, label) in enumerate(examples):
        file = FAMILIES[name](digit, np.random.default_rng([seed, family, number]))
        yield Result(file, _predict_one(client, file) == label)


def _predict_one(client: Client, file: bytes) -> int | None:
    """Return the predicted digit, or None if the service refuses the picture."""
    return client.predict(file).digit


def _accuracy(results: list[Result]) -> float:
    return sum(result.correct for result in results) / len(results)


def _strip(results: list[Result]) -> NDArray[np.uint8]:
    """Show correct predictions, then errors on red: each picture above its normalised digit."""
    correct = [result for result in results if result.correct][: _COLUMNS - 6]
    errors = [result for result in results if not result.correct][: _COLUMNS - len(correct)]
    cells = [_cell(result) for result in correct + errors]
    cells += [np.zeros_like(cells[0])] * (_COLUMNS - len(cells))
    return np.hstack(cells)


def _cell(result: Result) -> NDArray[np.uint8]:
    background = (90, 90, 90) if result.correct else (170, 40, 40)
    cell = np.full((2 * _CELL, _CELL, 3), background, np.uint8)
    pixels = images.decode(result.file)
    try:
        digit = images.normalise(pixels)
    except images.NoInkError:
        digit = np.zeros((28, 28), np.uint8)
    top = _thumbnail(pixels)
    cell[2 : 2 + top.shape[0], 2 : 2 + top.shape[1]] = top
    bottom = cv2.resize(digit, (_CELL - 4, _CELL - 4), interpolation=cv2.INTER_NEAREST)
    cell[_CELL + 2 : -2, 2:-2] = bottom[:, :, None]
    return cell


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if rgb.shape[2] == 4:
        alpha = rgb[:, :, 3:] / 255
        rgb = (rgb[:, :, :3] * alpha + 128 * (1 - alpha)).astype(np.uint8)
    scale = (_CELL - 4) / max(rgb.shape[:2])
    size = (max(1, int(rgb.shape[1] * scale)), max(1, int(rgb.shape[0] * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


if __name__ == "__main__":
    main()
