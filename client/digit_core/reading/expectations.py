"""Expectations: the form of a number that a caller knows before it is read, as automata over its symbols.

    parse_expectation("##/##/####")
    parse_expectation("#{4,6}", "luhn")
    parse_expectation(["1024", "1031"])

In a pattern, `#` stands for a digit, and `#{4}` or `#{4,6}` for that number of digits. Digits and signs stand
for themselves, and `|` separates alternatives; `date` and `amount` name common patterns. A check concerns the
number that the digits make: `luhn`, `mod11`, `mod97`, or a range such as `48210..` or `0..9999`.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from digit_core.reading.peaks import SIGN

MAX_ALTERNATIVES = 16
"""Largest number of alternatives of a pattern: each adds states to every place of a line."""
MAX_LENGTH = 64
"""Largest number of digits and signs of an expected number."""

_YEARS = range(1000, 3000)
"""Years of dates: other years are misread days or signs."""
_TOKEN = re.compile(r"#(?:\{(\d+)(?:(,)(\d+))?\})?|([0-9 .,:;/\\+=*'’_()$€£¥%-])")
_RANGE = re.compile(r"(\d{0,18})\.\.(\d{0,18})")


class Step(NamedTuple):
    """State after a symbol, the text that it adds, and the number of signs that only text or picture has."""

    state: Any
    text: str
    missed: int = 0


class Expectation(Protocol):
    """Automaton that takes the symbols of a number from left to right."""

    @property
    def start(self) -> Any:
        """Return the state before the first symbol."""
        ...

    def steps(self, state: Any, symbol: int) -> Iterator[Step]:
        """Yield the states that may follow by a symbol, 0 to 9 or `SIGN`."""
        ...

    def end(self, state: Any) -> Step | None:
        """Return the last step of a number that may end in this state, or None."""
        ...


class _Check(NamedTuple):
    """Condition on a number: a state that takes each digit of the text, and accepts the number or not."""

    start: Any
    add: Callable[[Any, str], Any]
    accepts: Callable[[Any], bool]
    takes_signs: bool = False


class _Token(NamedTuple):
    """Part of a pattern: symbols that fit, the text of a sign or space, and how many of them there may be."""

    symbols: frozenset[int]
    text: str = ""
    least: int = 1
    most: int | None = 1
    """None if there may be any number."""


class _Place(NamedTuple):
    """Place in a pattern: the alternative, the token, how many symbols it has, and the state of the check."""

    alternative: int
    token: int
    taken: int
    checked: Any


@dataclass(frozen=True)
class _Pattern:
    """Alternatives of tokens, with a check of the number."""

    alternatives: Sequence[Sequence[_Token]]
    check: _Check
    start: None = None

    @cached_property
    def has_signs(self) -> bool:
        """True if a text has a sign."""
        return any(SIGN in token.symbols for tokens in self.alternatives for token in tokens)

    def steps(self, state: _Place | None, symbol: int) -> Iterator[Step]:
        for place, text, missed in self._places(state):
            tokens = self.alternatives[place.alternative]
            if place.token < len(tokens) and symbol in tokens[place.token].symbols:
                token = tokens[place.token]
                written = text + (token.text if symbol == SIGN else str(symbol))
                taken = place.taken + 1 if token.most else min(place.taken + 1, token.least)
                checked = self._check(place.checked, written)
                if checked is not None:
                    yield Step(place._replace(taken=taken, checked=checked), written, missed)
        if symbol == SIGN:
            # Signs around the number do not belong to it.
            yield Step(state, "", int(self.has_signs and state is not None))
            if self.has_signs and (ended := self.end(state)):
                yield ended

    def end(self, state: _Place | None) -> Step | None:
        if state is None:
            return None
        for place, text, missed in self._places(state):
            is_last = place.token == len(self.alternatives[place.alternative])
            checked = self._check(place.checked, text)
            if is_last and checked is not None and self.check.accepts(checked):
                return Step(place._replace(checked=checked), text, missed)
        return None

    def _places(self, state: _Place | None) -> Iterator[tuple[_Place, str, int]]:
        """Yield the places where the next symbol may stand, with the text and number of signs before it."""
        places = [_Place(index, 0, 0, self.check.start) for index in range(len(self.alternatives))]
        for place in places if state is None else [state]:
            tokens, text, missed = self.alternatives[place.alternative], "", 0
            while True:
                if place.token == len(tokens):
                    yield place, text, missed
                    break
                token = tokens[place.token]
                if token.most is None or place.taken < token.most:
                    yield place, text, missed
                if place.taken < token.least:
                    if SIGN in token.symbols:
                        missed += 1
                    elif token.symbols:
                        break
                    text += token.text
                place = place._replace(token=place.token + 1, taken=0)

    def _check(self, checked: Any, text: str) -> Any:
        for character in text:
            if checked is not None and (self.check.takes_signs or character.isdigit()):
                checked = self.check.add(checked, character)
        return checked


@dataclass(frozen=True)
class _Anything:
    """Any digits, at least one. A state is True after the first one."""

    start: bool = False

    def steps(self, state: bool, symbol: int) -> Iterator[Step]:
        yield Step(state, "") if symbol == SIGN else Step(True, str(symbol))

    def end(self, state: bool) -> Step | None:
        return Step(state, "") if state else None


@dataclass(frozen=True)
class _Among:
    """Trie of valid numbers, kept as a sorted list of their digits. A state is a prefix."""

    numbers: Sequence[str]
    start: str = ""

    def steps(self, state: str, symbol: int) -> Iterator[Step]:
        if symbol == SIGN:
            yield Step(state, "")
        elif self._first(prefix := state + str(symbol)).startswith(prefix):
            yield Step(prefix, str(symbol))

    def end(self, state: str) -> Step | None:
        return Step(state, "") if state and self._first(state) == state else None

    def _first(self, prefix: str) -> str:
        """Return the first number that does not precede a prefix, or an empty text."""
        place = bisect_left(self.numbers, prefix)
        return self.numbers[place] if place < len(self.numbers) else ""


def parse_expectation(expect: str | Sequence[str] | None = None, check: str | None = None) -> Expectation:
    """Return the expectation of a pattern, a name or a list of valid numbers, with a check beside a pattern.

    A check alone concerns numbers of any length. Raise ValueError with the place of the mistake.
    """
    if expect is not None and not isinstance(expect, str):
        if check:
            raise ValueError("a check goes with a pattern, not with a list of numbers")
        return _among(expect)
    if expect == "date":
        if check:
            raise ValueError("`date` has its own check, the calendar")
        return _pattern("#{1,2}/#{1,2}/####|#{1,2}/#{1,2}/##|####-##-##", _CALENDAR)
    if expect == "amount":
        return _Pattern(_AMOUNTS, _parse_check(check))
    if expect is None and check is None:
        return _Anything()
    if expect is None:
        return _Pattern([[_Token(_DIGITS, most=None)]], _parse_check(check))
    return _pattern(expect, _parse_check(check))


def _pattern(text: str, check: _Check) -> _Pattern:
    alternatives: list[list[_Token]] = [[]]
    place = 0
    while place < len(text):
        if text[place] == "|":
            alternatives.append([])
            place += 1
            continue
        match = _TOKEN.match(text, place)
        if not match:
            raise ValueError(
                f"character {place + 1} of the pattern, {text[place]!r}, is not allowed; "
                "use #, digits, signs, {n} or |"
            )
        alternatives[-1].append(_token(match, place))
        place = match.end()
    if len(alternatives) > MAX_ALTERNATIVES:
        raise ValueError(f"a pattern has at most {MAX_ALTERNATIVES} alternatives, not {len(alternatives)}")
    for number, tokens in enumerate(alternatives, 1):
        if not any(token.symbols - {SIGN} for token in tokens):
            raise ValueError(f"alternative {number} of the pattern has no digit")
        if sum(token.most or 0 for token in tokens) > MAX_LENGTH:
            raise ValueError(
                f"alternative {number} of the pattern has more than {MAX_LENGTH} digits and signs"
            )
    return _Pattern(alternatives, check)


_DIGITS = frozenset(range(10))


def _token(match: re.Match[str], place: int) -> _Token:
    least, comma, most, character = match.groups()
    if character == " ":
        return _Token(frozenset(), " ")
    if character is not None:
        symbol = int(character) if character.isdigit() else SIGN
        return _Token(frozenset({symbol}), character)
    low = int(least) if least else 1
    high = int(most) if comma else low
    if not low <= high or not 0 < high <= MAX_LENGTH:
        raise ValueError(f"character {place + 1} of the pattern: {match[0]!r} allows no number of digits")
    return _Token(_DIGITS, least=low, most=high)


def _among(numbers: Sequence[str]) -> _Among:
    for place, number in enumerate(numbers, 1):
        if not (
            isinstance(number, str) and number.isascii() and number.isdigit() and len(number) <= MAX_LENGTH
        ):
            raise ValueError(f"number {place} of the list must be a text of 1 to {MAX_LENGTH} digits")
    return _Among(sorted({*numbers}))


def _parse_check(check: str | None) -> _Check:
    if check is None:
        return _NO_CHECK
    if check in _CHECKS:
        return _CHECKS[check]
    match = _RANGE.fullmatch(check)
    if not match or not any(match.groups()):
        raise ValueError(
            f"the check must be one of {', '.join(_CHECKS)}, or a range such as 0..9999, not {check!r}"
        )
    low, high = int(match[1] or 0), int(match[2]) if match[2] else None
    if high is not None and high < low:
        raise ValueError(f"the range {check} holds no number")
    return _Check(
        0,
        lambda value, character: value * 10 + int(character),
        lambda value: low <= value and (high is None or value <= high),
    )


def _add_luhn(state: tuple[int, int], character: str) -> tuple[int, int]:
    """Return the sums if the last digit counts once, and if it counts twice."""
    once, twice = state
    digit = int(character)
    return (twice + digit) % 10, (once + 2 * digit - 9 * (digit > 4)) % 10


def _add_mod11(state: tuple[int, int], character: str) -> tuple[int, int]:
    """Return the sum of the digits by weights 1, 2, 3, … from the right, and their sum."""
    weighted, total = state
    total = (total + int(character)) % 11
    return (weighted + total) % 11, total


def _add_to_date(text: str, character: str) -> str | None:
    """Return the text with the character, or None if no date begins with it."""
    text += character
    *parts, _ = re.split("[/-]", text)
    is_iso = len(text) > 4 and text[4] == "-"
    is_none = any(int(part) > 31 for part in parts) or (len(parts) == 2 and min(map(int, parts)) > 12)
    return text if is_iso or not is_none else None


def _is_date(text: str) -> bool:
    first, second, third = (int(part) for part in re.split("[/-]", text))
    orders = [(third, second, first), (third, first, second)]
    if text[4:5] == "-":
        orders = [(first, second, third)]
    return any(_is_day(*order) for order in orders)


def _is_day(year: int, month: int, day: int) -> bool:
    year = year + 2000 if year < 100 else year
    try:
        return date(year, month, day).year in _YEARS
    except ValueError:
        return False


_CHECKS = {
    "luhn": _Check((0, 0), _add_luhn, lambda state: state[0] == 0),
    "mod11": _Check((0, 0), _add_mod11, lambda state: state[0] == 0),
    "mod97": _Check(0, lambda state, character: (state * 10 + int(character)) % 97, lambda state: state == 1),
}
_NO_CHECK = _Check(0, lambda state, _: state, lambda _: True)
_CALENDAR = _Check("", _add_to_date, _is_date, takes_signs=True)
_POINT = _Token(frozenset({SIGN}), ".")
_GROUP = (_Token(frozenset({SIGN})), _Token(_DIGITS, least=3, most=3))
_AMOUNTS = [
    [_Token(_DIGITS, most=first), *groups, *cents]
    for first, groups in ((9, ()), (3, _GROUP), (3, 2 * _GROUP))
    for cents in ((), (_POINT, _Token(_DIGITS, least=2, most=2)))
]
