"""Priors of expected numbers, counted: `python -m benchmarks.priors MNIST.npz`.

Draws numbers of the first half of MNIST's test digits, and finds each text among the peaks of the shipped
networks by Viterbi's algorithm. The first table has the share of peaks that are in the text, the digits of
the line first; the second one how much more probable a gap without a sign is where the text is parted.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.certainty import HALF, test_digits
from benchmarks.numbers.families import NUMBERS, WITH_SIGNS, generator
from benchmarks.numbers.writing import Digits
from digit_core import images
from digit_core.reading.expectations import parse_expectation
from digit_core.reading.lines import FoundLines, find_places
from digit_core.reading.peaks import SIGN
from digit_core.reading.thresholds import THRESHOLDS
from digit_core.reading.viterbi import Path as TextPath
from digit_core.reading.viterbi import Places, Search, decode
from digit_training import shipped
from digit_training.finder import finder
from digit_training.reader import line_weights

Counted: TypeAlias = list[tuple[float, bool]]
"""Value of each peak or gap, and whether the text has the peak or is parted there."""

_LEFT_OUT = {"two lines", "dates", "amounts", "percentages"}
"""Families of several lines, of texts without their signs, and of signs that look like digits."""
_SEARCH = Search(count=1, max_cost=30)
_SCORES = [THRESHOLDS.min_weak_score, 0.2, 0.4, 1]
_GAPS = [-np.inf, 0.05, 0.15, 0.25, 0.35, 0.5, np.inf]


def main() -> None:
    """Print both tables."""
    arguments = _arguments()
    pages, texts = zip(*_draw(arguments), strict=True)
    reader = finder(shipped.load_detector())
    found = line_weights.find_all(pages, lambda levels: reader(levels[np.newaxis])[0])
    own: Counted = []
    others: Counted = []
    gaps: Counted = []
    for text, lines in zip(texts, found, strict=True):
        for line in lines.lines:
            places = find_places(lines, line)
            for path in decode(places, parse_expectation(text), _SEARCH):
                own += _peaks(lines, line, places, path, is_own=True)
                others += _peaks(lines, line, places, path, is_own=False)
                gaps += _gaps(text, places, path)
    _print_row("score of a peak", "n", "mean score", "in the text")
    _print_row("---", "---:", "---:", "---:")
    for low, high, counted in [(0, 1, own), *((*bounds, others) for bounds in pairwise(_SCORES))]:
        chosen = [each for each in counted if low <= each[0] < high]
        mean, share = np.mean(chosen, axis=0) if chosen else (0, 0)
        _print_row(f"{low:g} to {high:g}", str(len(chosen)), f"{mean:.3f}", f"{share:.3f}")
    sys.stdout.write("\n")
    _print_row("gap beyond the line's first quartile", "in numbers", "parting", "likelihood ratio")
    _print_row("---", "---:", "---:", "---:")
    values, are_parted = np.array(gaps).T
    for low, high in pairwise(_GAPS):
        chosen = (values >= low) & (values < high)
        within, parting = (chosen & (are_parted == kind) for kind in (0, 1))
        ratio = parting.sum() / are_parted.sum() / (max(1, within.sum()) / (are_parted == 0).sum())
        _print_row(f"{low:g} to {high:g}", str(within.sum()), str(parting.sum()), f"{ratio:.3f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.priors", description=__doc__)
    parser.add_argument("mnist", type=Path, help="path of mnist.npz, in Keras's layout")
    parser.add_argument("--count", type=int, default=60, help="number of pictures of each family")
    parser.add_argument("--seed", type=int, default=20000, help="seed of the pictures")
    return parser.parse_args()


def _draw(arguments: argparse.Namespace) -> Iterator[tuple[images.Page, str]]:
    digits = Digits(*test_digits(arguments.mnist, slice(HALF)))
    for family, write in (NUMBERS | WITH_SIGNS).items():
        for number in range(arguments.count if family not in _LEFT_OUT else 0):
            file, text = write(digits, generator(arguments.seed, family, number))
            yield images.to_page(images.decode(file)), text


def _peaks(found: FoundLines, line: Sequence[int], places: Places, path: TextPath, is_own: bool) -> Counted:
    """Return the line's own digits, or the other peaks of digits that no symbol of the text covers."""
    scores, taken = found.detected.digits.scores, [place for place, _ in path.symbols]
    is_covered = places.rivals[:, taken].any(axis=1)
    is_covered[taken] = False
    return [
        (float(scores[index]), place in taken)
        for place, index in enumerate(places.indexes.tolist())
        if index < len(scores) and (index in line) == is_own and (is_own or not is_covered[place])
    ]


def _gaps(text: str, places: Places, path: TextPath) -> Counted:
    """Return the gaps between digits, as multiples of their height; NaN where a sign is seen."""
    digits = [number for number, (_, symbol) in enumerate(path.symbols) if symbol != SIGN]
    boxes = places.boxes[[path.symbols[number][0] for number in digits]]
    gaps = (boxes[1:, 0] - boxes[:-1, 0] - boxes[:-1, 2]) / np.median(boxes[:, 3])
    gaps = np.where(np.diff(digits) > 1, np.nan, gaps - np.quantile(gaps, 0.25))
    return [*zip(gaps.tolist(), map(bool, re.findall(r"\d(\D*)(?=\d)", text)), strict=True)]


def _print_row(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
