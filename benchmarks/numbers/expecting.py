"""Numbers of which the caller knows something: how many are read with each expectation, right and wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.numbers.readers import LocalReader
from digit_core.reading.expectations import Expectation, Step, parse_expectation
from digit_core.results import Reading

KNOWN = {"dates": "date", "amounts": "amount"}
"""Families of which the caller knows the form, and its name."""
PATTERNS = [
    ("times", "##:##|#:##"),
    ("prices", "amount"),
    ("prices", "#{1,3}.##"),
    ("percentages", "##%"),
    ("percentages", "#{1,2}%|100%"),
    ("telephones", "(0##) ### ####|0## ### ####"),
]
"""Families whose text has signs, and patterns that a caller may give."""
_AMONG = 1000


@dataclass(frozen=True)
class WithRemainder:
    """Numbers of an expectation whose Luhn sum has this remainder: a random number need have no check digit.

    ISO/IEC 7812-1: from the right, every second digit counts twice, and its sum of digits is taken.
    """

    inner: Expectation
    remainder: int

    @property
    def start(self) -> Any:
        """Return the state before the first symbol, with both sums."""
        return self.inner.start, 0, 0

    def steps(self, state: Any, symbol: int) -> Iterator[Step]:
        """Yield the states that may follow, with the sums if the last digit counts once, and if twice."""
        inner, *sums = state
        for step in self.inner.steps(inner, symbol):
            yield step._replace(state=(step.state, *_add(sums, step.text)))

    def end(self, state: Any) -> Step | None:
        """Return the last step of a number with the remainder."""
        inner, once, _ = state
        return self.inner.end(inner) if once == self.remainder else None

    def density(self, length: int) -> float:
        """Return the share of the strings of this many digits that fit."""
        return self.inner.density(length) / 10


def _add(sums: list[int], text: str) -> list[int]:
    for digit in map(int, filter(str.isdigit, text)):
        once, twice = sums
        sums = [(twice + digit) % 10, (once + 2 * digit - 9 * (digit > 4)) % 10]
    return sums


def misfits(text: str, rng: np.random.Generator) -> dict[str, Expectation]:
    """Return what does not fit a number: another check digit, or lists without it.

    A list is at most 10 % dense, or has all numbers that differ in the last digit only.
    """
    length = len(text)
    size = min(_AMONG, 10**length // 10)
    others = {"".join(map(str, rng.integers(0, 10, length))) for _ in range(size)} - {text}
    remainder, _ = _add([0, 0], text)
    broken = (remainder + int(rng.integers(1, 10))) % 10
    return {
        "list without it": parse_expectation([*others]),
        "list of alike numbers without it": parse_expectation(
            [text[:-1] + digit for digit in "0123456789" if digit != text[-1]]
        ),
        "broken check digit": WithRemainder(parse_expectation(f"#{{{length}}}"), broken),
    }


def expectations(text: str, name: str | None, rng: np.random.Generator) -> dict[str, Expectation | None]:
    """Return what a caller may know of a number, by the table's columns."""
    length = f"#{{{len(text)}}}"
    remainder, _ = _add([0, 0], text)
    known: dict[str, Expectation | None] = {
        "nothing": None,
        "length": parse_expectation(length),
        "length and check digit": WithRemainder(parse_expectation(length), remainder),
    }
    if 10 ** len(text) > _AMONG:
        others = ("".join(map(str, rng.integers(0, 10, len(text)))) for _ in range(_AMONG - 1))
        known[f"among {_AMONG:,}"] = parse_expectation([text, *others])
    return known | ({name: parse_expectation(name)} if name else {})


@dataclass(frozen=True)
class Expected:
    """Number on a picture, and its readings by what was expected."""

    text: str
    readings: dict[str, Reading]

    def is_right(self, name: str) -> bool:
        """True if the number is read; signs and spaces are none of it."""
        return _digits(self.readings[name].text) == self.text

    def is_wrong(self, name: str) -> bool:
        """True if another number is read."""
        return not self.is_right(name) and not self.readings[name].refusal

    def is_candidate(self, name: str) -> bool:
        """True if the number is one of the candidates."""
        return self.text in (_digits(each.text) for each in self.readings[name].candidates)


def read_expecting(
    reader: LocalReader, family: str, file: bytes, text: str, rng: np.random.Generator
) -> Expected:
    """Return the readings of a picture by each expectation that its number fits: there is no 31 June."""
    known = expectations(text, KNOWN.get(family), rng)
    fitting = {name: each for name, each in known.items() if each is None or _accepts(each, text)}
    return Expected(text, {name: reader.read(file, each) for name, each in fitting.items()})


def _accepts(expectation: Expectation, text: str) -> bool:
    states = {expectation.start}
    for digit in map(int, text):
        states = {step.state for state in states for step in expectation.steps(state, digit)}
    return any(expectation.end(state) for state in states)


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))
