"""Decoding: the most probable texts of a line, among those that a caller expects."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from digit_core.reading.expectations import Expectation

_MAX_COST = 10.0
"""Largest cost of a text beyond that of the line's most probable symbols: what costs more is never meant."""
_MISSED = 0.2
"""Probability that a sign is not seen, or one is seen that the text does not have."""
_MAX_STATES = 50
"""Largest number of states at a place, the best ones: noise could be anything."""


@dataclass(frozen=True, slots=True)
class Places:
    """Lattice of a line: the places that may have a digit or a sign, from left to right.

    `indexes` [n] name the places to the caller; `boxes` float32 [n, 4]; `symbols` float64 [n, 11] are the
    probabilities of the ten digits and of a sign, which leave the rest to nothing; `rivals` bool [n, n] has
    the pairs of which only one can be there.
    """

    indexes: NDArray[np.intp]
    boxes: NDArray[np.float32]
    symbols: NDArray[np.float64]
    rivals: NDArray[np.bool_]

    def costs(self) -> NDArray[np.float64]:
        """Return the negative log probabilities of each symbol and of nothing, [n, 12], above the best's."""
        nothing = np.maximum(1 - self.symbols.sum(axis=1, keepdims=True), 0)
        with np.errstate(divide="ignore"):
            costs = -np.log(np.hstack((self.symbols, nothing)))
        return np.asarray(costs - costs.min(axis=1, keepdims=True))


class Path(NamedTuple):
    """Way through the places of a line: its cost, its text, and the places with their symbols."""

    cost: float
    text: str
    symbols: tuple[tuple[int, int], ...]


def decode(
    places: Places,
    expectation: Expectation,
    count: int = 5,
    max_cost: float = _MAX_COST,
    missed: float = _MISSED,
) -> list[Path]:
    """Return the `count` most probable texts that fit, the best one first.

    Viterbi's algorithm, with the best paths of each state of the expectation. The probability of a text is
    exp(-cost), as a multiple of that of the most probable symbols. A. J. Viterbi, "Error bounds for
    convolutional codes", IEEE Trans. Information Theory 13, 1967.
    """
    costs = places.costs().tolist()
    missed_cost = -np.log(missed).item() if missed else np.inf
    rivals = np.triu(places.rivals, 1)
    # A symbol's place is part of the state up to its last rival.
    last_rivals = [int(row.nonzero()[0].max(initial=-1)) for row in rivals]
    states: dict[Any, list[Path]] = {(expectation.start, -1): [Path(0.0, "", ())]}
    for place, (*symbol_costs, nothing) in enumerate(costs):
        symbols = [(symbol, cost) for symbol, cost in enumerate(symbol_costs) if cost <= max_cost]
        kept = place if last_rivals[place] > place else -1
        following: dict[Any, list[Path]] = {}
        for (state, last), paths in states.items():
            least = paths[0].cost
            if least + nothing <= max_cost:
                key = state, last if last >= 0 and last_rivals[last] > place else -1
                following.setdefault(key, []).extend(
                    path._replace(cost=path.cost + nothing) for path in paths
                )
            if last >= 0 and rivals[last, place]:
                continue
            for symbol, cost in symbols:
                if least + cost > max_cost:
                    continue
                for step in expectation.steps(state, symbol):
                    total = cost + missed_cost * step.missed if step.missed else cost
                    following.setdefault((step.state, kept), []).extend(
                        Path(path.cost + total, path.text + step.text, (*path.symbols, (place, symbol)))
                        for path in paths
                    )
        best = ((key, _best(paths, count, max_cost)) for key, paths in following.items())
        states = dict(sorted(((key, paths) for key, paths in best if paths), key=_cost)[:_MAX_STATES])
    ended = (_end(expectation, state, paths, missed_cost) for (state, _), paths in states.items())
    return _best(chain.from_iterable(ended), count, max_cost)


def _cost(state: tuple[Any, list[Path]]) -> float:
    return state[1][0].cost


def _end(expectation: Expectation, state: Any, paths: list[Path], missed_cost: float) -> list[Path]:
    step = expectation.end(state)
    if step is None:
        return []
    cost = missed_cost * step.missed if step.missed else 0.0
    return [Path(path.cost + cost, path.text + step.text, path.symbols) for path in paths]


def _best(paths: Iterable[Path], count: int, max_cost: float) -> list[Path]:
    """Return the best path of each text, at most `count`, the best one first."""
    best: dict[str, Path] = {}
    for path in sorted(paths):
        if path.cost > max_cost or len(best) == count:
            break
        best.setdefault(path.text, path)
    return [*best.values()]
