"""Error rates of the quality gate: simulated versions that are as good as the served one, or worse.

Each picture has a difficulty, which both versions share, and each version errs on its own, too.
"""

import argparse
from collections.abc import Callable

import click
import numpy as np
from numpy.typing import NDArray

from digit_training.quality_gate import TEST, Comparison, Comparisons, QualityGate

_ACCURACY = 0.9
_SHARED = 0.9
"""Correlation of the errors of two versions: they differ on one picture in twelve."""

Rights = NDArray[np.bool_]


def _draw(
    labels: int, each: int, worse: float, rng: np.random.Generator
) -> tuple[Rights, Rights, NDArray[np.intp]]:
    """Return the right answers of a new and of the served version, and the labels: [labels * each]."""
    count = labels * each
    shared = rng.normal(size=count)
    drawn = _SHARED**0.5 * shared + (1 - _SHARED) ** 0.5 * rng.normal(size=(2, count))
    order = np.sort(_SHARED**0.5 * rng.normal(size=200_000) + (1 - _SHARED) ** 0.5 * rng.normal(size=200_000))
    limits = [order[int(share * len(order))] for share in (_ACCURACY - worse, _ACCURACY)]
    return drawn[0] < limits[0], drawn[1] < limits[1], np.repeat(np.arange(labels), each)


def _refused(labels: int, each: int, worse: float, lost: int, tries: int) -> float:
    """Return the share of versions that are refused, 0..1, of which the first labels are `lost`."""
    rng, gate = np.random.default_rng(0), QualityGate(0.1)
    refused = 0
    for _ in range(tries):
        right, served, indices = _draw(labels, each, worse, rng)
        right = right & (indices >= lost)
        judged = Comparisons("models/1", {TEST: Comparison(right, served, indices)})
        refused += any(True for _ in gate.reasons(judged, [str(label) for label in range(labels)]))
    return refused / tries


def main() -> None:
    """Print the share of refused versions of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=400)
    tries = parser.parse_args().tries
    kinds: dict[str, Callable[[int, int], float]] = {
        "equal": lambda labels, each: _refused(labels, each, 0, 0, tries),
        "five points worse": lambda labels, each: _refused(labels, each, 0.05, 0, tries),
        "one label lost": lambda labels, each: _refused(labels, each, 0, 1, tries),
    }
    for labels, each in ((10, 20), (10, 100), (30, 10), (100, 10)):
        shares = ", ".join(f"{name} {100 * share(labels, each):.1f} %" for name, share in kinds.items())
        click.echo(f"{labels} labels of {each} pictures, refused: {shares}")


if __name__ == "__main__":
    main()
