"""Viterbi's algorithm: the most probable texts of a line, among those that a caller expects."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nsmallest
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from digit_core.reading.expectations import Expectation, Step
from digit_core.reading.peaks import SIGN
from digit_core.reading.thresholds import THRESHOLDS


@dataclass(frozen=True, slots=True)
class Search:
    """Bounds of a search: the number of texts, and their largest cost beyond that of the best one."""

    count: int = THRESHOLDS.max_candidates
    max_cost: float = THRESHOLDS.max_cost


_SEARCH = Search()


@dataclass(frozen=True, slots=True)
class Places:
    """Lattice of a line: the places that may have a digit or a sign, from left to right.

    `indexes` [n] name the places to the caller; `boxes` float32 [n, 4]; `symbols` float64 [n, 11] are the
    probabilities of the ten digits and of a sign, which leave the rest to nothing; `rivals` bool [n, n] has
    the pairs of which only one can be there; `missed` float64 [n + 1] are the probabilities that a sign
    before each place, and behind the last one, is not seen.
    """

    indexes: NDArray[np.intp]
    boxes: NDArray[np.float32]
    symbols: NDArray[np.float64]
    rivals: NDArray[np.bool_]
    missed: NDArray[np.float64]

    def costs(self) -> NDArray[np.float64]:
        """Return the costs of each symbol and of nothing, [n, 12], above that of the most probable."""
        nothing = np.maximum(1 - self.symbols.sum(axis=1, keepdims=True), 0)
        with np.errstate(divide="ignore"):
            costs = -np.log(np.hstack((self.symbols, nothing)))
        return np.asarray(costs - costs.min(axis=1, keepdims=True))


class Path(NamedTuple):
    """Way through the places of a line: its cost, its text, and the places with their symbols."""

    cost: float = 0.0
    text: str = ""
    symbols: tuple[tuple[int, int], ...] = ()

    def then(self, step: "Path") -> "Path":
        """Return the path with a step at its end."""
        return Path(self.cost + step.cost, self.text + step.text, self.symbols + step.symbols)


_State: TypeAlias = tuple[Any, int]
"""State of the expectation, and the last place that has a symbol, up to its last rival; then -1."""
_Arrival: TypeAlias = tuple[float, Path, list[Path]]
"""Least cost of the paths that arrive at a state by a step, the step, and the paths before it."""


def decode(
    places: Places, expectation: Expectation, search: Search = _SEARCH, best: float | None = None
) -> list[Path]:
    """Return the most probable texts that fit, the best one first.

    `best` is the cost of the most probable text of any kind; without it, that of the best paths counts.

    Viterbi's algorithm, with the best paths of each state of the expectation. The probability of a text is
    exp(-cost), as a multiple of that of the most probable symbols. A. J. Viterbi, "Error bounds for
    convolutional codes", IEEE Trans. Information Theory 13, 1967.

    Beam search bounds the work for any expectation: each place keeps `max_states` states, the best ones, and
    of these only the first `max_arcs` arcs are followed.
    """
    trellis = _Trellis(places, expectation)
    states: dict[_State, list[Path]] = {(expectation.start, -1): [Path()]}
    for place in range(len(places.indexes)):
        # Rivals, of which all but one are left out, make each path dear.
        least = min((paths[0].cost for paths in states.values()), default=0.0) if best is None else best
        limit = least + search.max_cost
        arrivals: dict[_State, list[_Arrival]] = {}
        left = THRESHOLDS.max_arcs
        for state, paths in states.items():
            for next_state, step in trellis.steps(place, state, paths[0].cost, limit):
                arrivals.setdefault(next_state, []).append((paths[0].cost + step.cost, step, paths))
                left -= 1
            if left <= 0:
                break
        cheapest = nsmallest(THRESHOLDS.max_states, arrivals.items(), key=_least_cost)
        states = {state: _best(arrived, search.count, limit) for state, arrived in cheapest}
    ends = [arrival for state, paths in states.items() for arrival in trellis.end(state, paths)]
    least = min(map(itemgetter(0), ends), default=0.0) if best is None else best
    return _best(ends, search.count, least + search.max_cost)


class _Trellis:
    """Steps from a state at one place to those at the next one."""

    def __init__(self, places: Places, expectation: Expectation) -> None:
        self._expectation = expectation
        self._missed = [-math.log(share) if share else math.inf for share in places.missed.tolist()]
        self._costs = places.costs().tolist()
        self._rivals = np.triu(places.rivals, 1)
        self._last_rivals = [int(row.nonzero()[0].max(initial=-1)) for row in self._rivals]
        self._arcs: dict[Any, list[tuple[int, Step]]] = {}
        """Symbol and step of each arc from a state of the expectation."""

    def steps(self, place: int, state: _State, cost: float, limit: float) -> Iterator[tuple[_State, Path]]:
        """Yield the next states, each with its step: nothing, or a symbol.

        The paths have this cost and more, at most `limit` with the step.
        """
        expected, last = state
        symbols, left = self._costs[place], limit - cost
        if (nothing := symbols[-1]) <= left:
            yield (expected, last if last >= 0 and self._last_rivals[last] > place else -1), Path(nothing)
        if last >= 0 and self._rivals[last, place]:
            return
        kept = place if self._last_rivals[place] > place else -1
        for symbol, step in self._arcs_from(expected):
            if (total := symbols[symbol] + self._cost(step, place)) <= left:
                shown = symbol if step.writes(symbol) else SIGN
                yield (step.state, kept), Path(total, step.text, ((place, shown),))

    def _arcs_from(self, expected: Any) -> list[tuple[int, Step]]:
        if (arcs := self._arcs.get(expected)) is None:
            arcs = self._arcs[expected] = [
                (symbol, step)
                for symbol in range(SIGN + 1)
                for step in self._expectation.steps(expected, symbol)
            ]
        return arcs

    def end(self, state: _State, paths: list[Path]) -> Iterator[_Arrival]:
        """Yield the arrivals of the paths that may end in this state."""
        if step := self._expectation.end(state[0]):
            cost = self._cost(step, -1)
            yield paths[0].cost + cost, Path(cost, step.text), paths

    def _cost(self, step: Step, place: int) -> float:
        """Return the cost of a step, with that of signs which nothing shows before the place."""
        return step.cost + self._missed[place] * step.missed if step.missed else step.cost


def _least_cost(arrivals: tuple[_State, list[_Arrival]]) -> float:
    return min(cost for cost, _, _ in arrivals[1])


def _best(arrivals: list[_Arrival], count: int, max_cost: float) -> list[Path]:
    """Return the best path of each text, at most `count`, the best one first."""
    found: list[Path] = []
    texts: set[str] = set()
    limit = max_cost
    for cost, step, paths in sorted(arrivals, key=itemgetter(0)):
        # Enough texts cost less than any path of the arrivals that follow.
        if cost > limit:
            break
        found += [path.then(step) for path in paths]
        texts.add(found[-len(paths)].text)
        if len(texts) == count:
            limit = cost
    best: dict[str, Path] = {}
    for path in sorted(found):
        if path.cost > max_cost or len(best) == count:
            break
        best.setdefault(path.text, path)
    return [*best.values()]
