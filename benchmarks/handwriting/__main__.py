"""Accuracy on difficult pictures, by family: `python -m benchmarks.handwriting MNIST.npz`.

Sends the pictures to the gateway at DIGITS_URL over HTTP, and prints a table.
"""

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.handwriting.families import EMPTY_FAMILIES, FAMILIES
from benchmarks.handwriting.pen import stroke_width
from digit_client import Client

_MAX_STROKE_WIDTH = 0.17
"""Share of a digit's height. 6 % of the digits are bolder, with filled loops and misleading skeletons."""


def main() -> None:
    """Print a row for each family."""
    arguments = _arguments()
    with np.load(arguments.mnist) as mnist:
        digits, labels = mnist["x_test"], mnist["y_test"]
    chosen = choose(digits, arguments.count, arguments.seed)
    blank = np.zeros_like(digits[0])

    def share_right(name: str, is_empty: bool = False) -> float:
        """Return the share of a family's pictures that are predicted rightly, or if empty, refused."""
        family, right = list(FAMILIES).index(name), 0
        for number, index in enumerate(chosen):
            rng = np.random.default_rng([arguments.seed, family, number])
            file = FAMILIES[name](blank if is_empty else digits[index], rng)
            label, answer = None if is_empty else int(labels[index]), client.predict(file).digit
            right += answer == label
            if answer != label and arguments.errors:
                (arguments.errors / f"{name} {number}, {label} read as {answer}").write_bytes(file)
        return right / len(chosen)

    if arguments.errors:
        arguments.errors.mkdir(parents=True, exist_ok=True)
    with Client(timeout=60) as client:
        shares = []
        for name in FAMILIES:
            shares.append(share_right(name))
            sys.stdout.write(f"| {name} | {shares[-1]:.1%} |\n")
        sys.stdout.write(f"| *mean* | {np.mean(shares):.1%} |\n")
        for name in EMPTY_FAMILIES:
            sys.stdout.write(
                f"| {name}, nothing written | {share_right(name, is_empty=True):.1%} refused |\n"
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy on difficult pictures of MNIST's test digits.")
    parser.add_argument("mnist", type=Path, help="path of mnist.npz, in Keras's layout")
    parser.add_argument("--count", type=int, default=500, help="number of digits in each family")
    parser.add_argument("--seed", type=int, default=0, help="seed of digits and pictures")
    parser.add_argument("--errors", type=Path, help="folder for the pictures with a wrong answer")
    return parser.parse_args()


def choose(digits: NDArray[np.uint8], count: int, seed: int) -> list[int]:
    """Return indexes of random digits whose strokes a thinner pen can follow."""
    order = np.random.default_rng(seed).permutation(len(digits)).tolist()
    thin = (index for index in order if stroke_width(digits[index]) < _MAX_STROKE_WIDTH)
    return list(islice(thin, count))


if __name__ == "__main__":
    main()
