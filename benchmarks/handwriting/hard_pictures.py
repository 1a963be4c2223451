"""Hard pictures of the quality gate: `python -m benchmarks.handwriting.hard_pictures MNIST.npz OUTPUT.npz`.

Two pictures of each digit in each family, of different test digits, prepared as in serving: uint8
[n, 28, 28] in `x_test`, labels in `y_test`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.handwriting.__main__ import choose
from benchmarks.handwriting.families import FAMILIES
from digit_core import images
from digit_core.artifact.task_card import DIGITS

_SEED = 0
_PER_FAMILY = 2


def main() -> None:
    """Draw and prepare the pictures, and write them to the file."""
    parser = argparse.ArgumentParser(description="Makes the hard pictures of the quality gate.")
    parser.add_argument("mnist", type=Path, help="path of mnist.npz, in Keras's layout")
    parser.add_argument("output", type=Path, help="path of the .npz file to write")
    arguments = parser.parse_args()
    with np.load(arguments.mnist) as mnist:
        digits, labels = mnist["x_test"], mnist["y_test"]
    chosen = choose(digits, len(digits), _SEED)
    drawn = [
        (picture, label)
        for label in range(10)
        for picture in _draw(digits[[index for index in chosen if labels[index] == label]], label)
    ]
    x_test = np.stack([picture for picture, _ in drawn])
    y_test = np.array([label for _, label in drawn], np.uint8)
    np.savez_compressed(arguments.output, x_test=x_test, y_test=y_test)


def _draw(digits: NDArray[np.uint8], label: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the prepared pictures of digits uint8 [n, 28, 28] of one label, each digit used once."""
    for number, digit in enumerate(digits[: _PER_FAMILY * len(FAMILIES)]):
        draw = list(FAMILIES.values())[number // _PER_FAMILY]
        file = draw(digit, np.random.default_rng([_SEED, label, number]))
        yield images.prepare(images.decode_for_task(file, DIGITS), DIGITS)


if __name__ == "__main__":
    main()
