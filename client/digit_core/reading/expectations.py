"""Expectations: the form of a number that a caller knows before it is read, as automata over its symbols.

    parse_expectation("##/##/####")
    parse_expectation("#{4,6}", "luhn")
    parse_expectation(["1024", "1031"])

In a pattern, `#` stands for a digit, and `#{4}` or `#{4,6}` for that number of digits. Digits and signs stand
for themselves, and `|` separates alternatives; `date` and `amount` name common patterns, and
`date:dmy:1990..2030` also the form and the years. A check concerns the number that the digits make: `luhn`,
`mod11`, `mod97`, or a range such as `48210..` or `0..9999`.
"""

import difflib
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from digit_core.reading.peaks import SIGN
from digit_core.reading.thresholds import THRESHOLDS

MAX_STEPS = 500
"""Largest number of steps of a pattern, from each of its places to those of the next symbol."""
_MAX_LENGTH = 64
"""Largest number of digits of a number in a list."""
_MAX_DIGITS = 128
"""Number of digits from which the density of a pattern counts as the same."""

_YEARS = range(1900, 2101)
"""Years of dates, unless the caller says them: others are misread days or signs."""
_FORMS = {
    "dmy": "#{1,2}/#{1,2}/####|#{1,2}/#{1,2}/##",
    "mdy": "#{1,2}/#{1,2}/####|#{1,2}/#{1,2}/##",
    "ymd": "####-##-##",
}
"""Patterns of dates by the order of day, month and year."""
_WHOLE_AMOUNT = math.log((1 - THRESHOLDS.whole_amount) / THRESHOLDS.whole_amount)
_TOKEN = re.compile(r"#(?:\{(\d+)(?:(,)(\d+))?\})?|([0-9 .,:;/\\+=*'’_()$€£¥%-])")
_RANGE = re.compile(r"(\d{0,18})\.\.(\d{0,18})")


class Step(NamedTuple):
    """State after a symbol, the text that it adds, and how many of its signs have no symbol.

    The cost is that of a rare form.
    """

    state: Any
    text: str
    missed: int = 0
    cost: float = 0.0

    def writes(self, symbol: int) -> bool:
        """Tell if the text has the symbol: a digit may belong to a sign, such as a percent sign's circle."""
        return self.text.endswith(str(symbol))


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

    def density(self, length: int) -> float:
        """Return the share of the strings of this many digits that fit."""
        ...


class _Check(NamedTuple):
    """Condition on a number: a state that takes each digit of the text, and accepts the number or not."""

    start: Any
    add: Callable[[Any, str], Any]
    accepts: Callable[[Any], bool]
    share: Callable[[int], float]
    """Share of the strings of so many digits that pass."""
    takes_signs: bool = False
    low: int = 0
    high: float = math.inf
    """Bounds of the numbers that pass."""


class _Token(NamedTuple):
    """Part of a pattern: symbols that fit, the text of a sign or space, and how many of them there may be."""

    symbols: frozenset[int]
    text: str = ""
    least: int = 1
    most: int | None = 1
    """None if there may be any number."""

    @property
    def digits(self) -> frozenset[int]:
        """Digits of the number that fit: none of a sign's, which may look like them."""
        return frozenset() if SIGN in self.symbols else self.symbols


class _Position(NamedTuple):
    """Position in a pattern: the alternative, the token, and how many symbols it has."""

    alternative: int
    token: int
    taken: int


class _State(NamedTuple):
    """Position in a pattern, None before the number, and the state of the check."""

    position: _Position | None
    checked: Any


@dataclass(frozen=True)
class _Pattern:
    """Alternatives of tokens, with a check of the number."""

    alternatives: Sequence[Sequence[_Token]]
    check: _Check
    costs: Sequence[float] | None = None
    """Costs of the alternatives, if some are rarer than others."""

    @cached_property
    def start(self) -> _State:
        return _State(None, self.check.start)

    @cached_property
    def has_signs(self) -> bool:
        """True if a text has a sign."""
        return any(SIGN in token.symbols for tokens in self.alternatives for token in tokens)

    def steps(self, state: _State, symbol: int) -> Iterator[Step]:
        for position, text, missed in self._arcs(state.position, symbol):
            checked = self._check(state.checked, text)
            if checked is not None:
                yield Step(_State(position, checked), text, missed)
        if symbol != SIGN:
            return
        # Signs around the number do not belong to it.
        if state.position is None or not self.has_signs:
            yield Step(state, "")
        elif ended := self.end(state):
            yield ended

    def end(self, state: _State) -> Step | None:
        if state.position is None:
            return None
        for position, text, missed in self._places(state.position):
            is_last = position.token == len(self.alternatives[position.alternative])
            checked = self._check(state.checked, text)
            if is_last and checked is not None and self.check.accepts(checked):
                # Signs behind the number end it again.
                cost = self.costs[position.alternative] if self.costs and position != state.position else 0.0
                return Step(_State(position, checked), text, missed, cost)
        return None

    def density(self, length: int) -> float:
        return float(self._shares[min(length, _MAX_DIGITS)]) * self.check.share(length)

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """Shares of the strings of each number of digits that fit; their sum bounds a union."""
        return np.minimum(sum(map(_shares_of, self.alternatives)), 1)

    def _arcs(self, position: _Position | None, symbol: int) -> list[tuple[_Position, str, int]]:
        """Return the steps by a symbol to other positions, which don't depend on the check."""
        if (arcs := self._known_arcs.get((position, symbol))) is None:
            arcs = self._known_arcs[position, symbol] = []
            for place, text, missed in self._places(position):
                tokens = self.alternatives[place.alternative]
                if place.token < len(tokens) and symbol in tokens[place.token].symbols:
                    token = tokens[place.token]
                    taken = place.taken + 1 if token.most else min(place.taken + 1, token.least)
                    added = str(symbol) if token.digits else "" if place.taken else token.text
                    arcs.append((place._replace(taken=taken), text + added, missed))
        return arcs

    @cached_property
    def _known_arcs(self) -> dict[tuple[_Position | None, int], list[tuple[_Position, str, int]]]:
        return {}

    def _places(self, position: _Position | None) -> Iterator[tuple[_Position, str, int]]:
        """Yield where the next symbol may stand, with the text and number of signs before it."""
        first = [_Position(index, 0, 0) for index in range(len(self.alternatives))]
        for place in first if position is None else [position]:
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
                place = _Position(place.alternative, place.token + 1, 0)

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

    def density(self, length: int) -> float:
        return 1.0


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

    def density(self, length: int) -> float:
        return float(self._counts[length] / 10**length)

    @cached_property
    def _counts(self) -> Counter[int]:
        return Counter(map(len, self.numbers))

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
    if expect is not None and expect.partition(":")[0] == "date":
        if check:
            raise ValueError("`date` has its own check, the calendar")
        return _date(expect)
    if expect == "amount":
        return _Pattern(_AMOUNTS, _parse_check(check), _AMOUNT_COSTS)
    if expect is None and check is None:
        return _Anything()
    if expect is None:
        return _Pattern([[_Token(_DIGITS, most=None)]], _parse_check(check))
    return _pattern(expect, _parse_check(check))


def _date(expect: str) -> _Pattern:
    """Return the pattern of a date; its name may be followed by forms and a range of years."""
    forms, years = [], _YEARS
    for part in expect.split(":")[1:]:
        if part in _FORMS:
            forms.append(part)
        elif match := re.fullmatch(r"(\d{4})\.\.(\d{4})", part):
            years = range(int(match[1]), int(match[2]) + 1)
        else:
            known = ", ".join(_FORMS)
            raise ValueError(
                f"a date has forms ({known}) and a range of years, as date:dmy:1990..2030, not {part!r}"
            )
    if not years:
        raise ValueError(f"{expect} has no year")
    chosen = forms or [*_FORMS]
    calendar = _Check(
        "",
        partial(_add_to_date, years),
        partial(_is_date, chosen, years),
        partial(_share_of_dates, chosen, years),
        takes_signs=True,
    )
    return _pattern("|".join(dict.fromkeys(_FORMS[form] for form in chosen)), calendar)


def fits(text: str, expectation: Expectation) -> bool:
    """Return True if the digits of a text are as expected; signs don't count."""
    states = {expectation.start}
    for digit in filter(str.isdecimal, text):
        steps = (step for state in states for step in expectation.steps(state, int(digit)))
        states = {step.state for step in steps if step.writes(int(digit))}
    return any(expectation.end(state) for state in states)


def _pattern(text: str, check: _Check) -> _Pattern:
    if not text:
        raise ValueError("the pattern is empty; in a URL, write %23 for #")
    if re.fullmatch(r"\d{4,}(,\d{4,})+", text):
        raise ValueError(f"several valid numbers are a list, or a pattern: {text.replace(',', '|')}")
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
                f"{_meant(text) or 'use #, digits, signs, {n} or |'}"
            )
        token, last = _token(match, place), alternatives[-1][-1:]
        if last and token.symbols == _DIGITS == last[0].symbols:
            # Optional digits beside each other would be states that mean the same.
            least = last[0].least + token.least
            token = _Token(_DIGITS, least=least, most=(last[0].most or 0) + (token.most or 0))
            alternatives[-1].pop()
        alternatives[-1].append(token)
        place = match.end()
    for number, tokens in enumerate(alternatives, 1):
        if not any(token.digits for token in tokens):
            raise ValueError(f"alternative {number} of the pattern has no digit")
    if (steps := sum(map(_steps, alternatives))) > MAX_STEPS:
        raise ValueError(
            f"the pattern has {steps:,} steps from a digit or sign to the next; it may have {MAX_STEPS}. "
            "Use fewer alternatives, or fewer digits and signs that may be missing"
        )
    ranges = [*map(_range, alternatives)]
    if not any(check.low <= most and least <= check.high for least, most in ranges):
        numbers = ", ".join(f"{least} to {most}" for least, most in ranges[:3])
        is_short = check.low > max(most for _, most in ranges)
        way_out = f"; write {'#' * len(str(check.low))} instead" if is_short else ""
        raise ValueError(
            f"no number of the pattern {text} passes the check; its numbers are {numbers}{way_out}"
        )
    return _Pattern(alternatives, check)


def _meant(text: str) -> str:
    """Return what a text that is no pattern may mean: a name, a file, or another notation of digits."""
    if close := difflib.get_close_matches(text.lower(), ("date", "amount"), 1):
        return f"write {close[0]} instead"
    if re.fullmatch(r"\[[\d\", ]+\]", text):
        return "write one number a line, or send the whole request as JSON"
    if re.search(r"\.(csv|txt)$", text):
        return (
            f"a file of valid numbers is @{text} on the command line, <{text} in curl, and a list elsewhere"
        )
    pattern = re.sub(r"\\d|\[0-9\]|[DdMmYyNnXx]", "#", text).removeprefix("^").removesuffix("$")
    is_date = {*"dmy"} <= {*text.lower()}
    if not re.fullmatch(r"(#|\{\d+(,\d+)?\}|[0-9 .,:;/|-])+", pattern):
        return ""
    return f"write {'date or ' if is_date else ''}{pattern} instead"


def _range(tokens: Sequence[_Token]) -> tuple[int, int]:
    """Return the smallest and the largest number of an alternative, without its signs."""
    digits = [(sorted(token.digits), token) for token in tokens if token.digits]
    smallest = "".join(str(symbols[0]) * token.least for symbols, token in digits)
    largest = "".join(str(symbols[-1]) * (token.most or token.least) for symbols, token in digits)
    return int(smallest or 0), int(largest or 0)


def _shares_of(tokens: Sequence[_Token]) -> NDArray[np.float64]:
    """Return the shares of the strings of 0 to `_MAX_DIGITS` digits that fit an alternative."""
    shares = np.eye(1, _MAX_DIGITS + 1)[0]
    for token in tokens:
        if token.digits:
            counts = np.zeros(_MAX_DIGITS + 1)
            most = _MAX_DIGITS if token.most is None else token.most
            counts[token.least : most + 1] = (len(token.digits) / 10) ** token.least
            shares = np.convolve(shares, counts)[: _MAX_DIGITS + 1]
    return np.asarray(shares)


def _steps(tokens: Sequence[_Token]) -> int:
    """Return the number of steps from the places of an alternative to those of the next symbol."""
    steps, following = 0, 0
    for token in reversed(tokens):
        steps += (token.most or token.least + 1) * (following + 1)
        # A sign may be missed.
        following = following + 1 if token.least == 0 or not token.digits else 1
    return steps + following


_DIGITS = frozenset(range(10))
_LIKE_DIGITS = {"%": (_DIGITS, 2), "(": (frozenset({1}), 1), ")": (frozenset({1}), 1)}
"""Signs that the reader may take for digits: which ones, and how many at most."""


def _token(match: re.Match[str], place: int) -> _Token:
    least, comma, most, character = match.groups()
    if character == " ":
        return _Token(frozenset(), " ")
    if character is not None and character.isdigit():
        return _Token(frozenset({int(character)}), character)
    if character is not None:
        digits, most = _LIKE_DIGITS.get(character, (frozenset(), 1))
        return _Token(digits | {SIGN}, character, most=most)
    low = int(least) if least else 1
    high = int(most) if comma else low
    if not low <= high or not high:
        raise ValueError(f"character {place + 1} of the pattern: {match[0]!r} allows no number of digits")
    return _Token(_DIGITS, least=low, most=high)


def _among(numbers: Sequence[str]) -> _Among:
    for place, number in enumerate(numbers, 1):
        if not (
            isinstance(number, str) and number.isascii() and number.isdigit() and len(number) <= _MAX_LENGTH
        ):
            raise ValueError(f"number {place} of the list must be a text of 1 to {_MAX_LENGTH} digits")
    return _Among(sorted({*numbers}))


def _parse_check(check: str | None) -> _Check:
    if check is None:
        return _NO_CHECK
    if check in _CHECKS:
        return _CHECKS[check]
    match = _RANGE.fullmatch(check)
    if not match or not any(match.groups()):
        raise ValueError(
            f"the check must be one of {', '.join(_CHECKS)}, or a range such as 48210.., ..9999 or 0..9999, "
            f"not {check!r}"
        )
    low, high = int(match[1] or 0), int(match[2]) if match[2] else math.inf
    if high < low:
        raise ValueError(f"the range {check} holds no number")
    # Larger values are all the same to the check.
    largest = low if high == math.inf else high + 1

    def share(length: int) -> float:
        return float(max(0, min(high, 10**length - 1) - low + 1) / 10**length)

    return _Check(
        0,
        lambda value, character: min(value * 10 + int(character), largest),
        lambda value: low <= value <= high,
        share,
        low=low,
        high=high,
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


def _add_to_date(years: range, text: str, character: str) -> str | None:
    """Return the text with the character, or None if no date begins with it."""
    text += character
    *parts, last = re.split("[/-]", text)
    if len(text) > 4 and text[4] == "-":
        return text if int(parts[0]) in years else None
    is_none = any(int(part) > 31 for part in parts) or (len(parts) == 2 and min(map(int, parts)) > 12)
    is_none |= len(parts) == 2 and len(last) == 4 and int(last) not in years
    return None if is_none else text


def _is_date(forms: Sequence[str], years: range, text: str) -> bool:
    parts = re.split("[/-]", text)
    orders = [form for form in forms if (form == "ymd") == (text[4:5] == "-")]
    return any(_is_day(years, **dict(zip(form, parts, strict=True))) for form in orders)


def _is_day(years: range, y: str, m: str, d: str) -> bool:
    centuries = (1900, 2000, 2100) if len(y) == 2 else (0,)
    for year in (century + int(y) for century in centuries):
        try:
            if date(year, int(m), int(d)).year in years:
                return True
        except ValueError:
            pass
    return False


def _share_of_dates(forms: Sequence[str], years: range, length: int) -> float:
    """Return the share of the strings of digits that are dates, about: days of months by their digits."""
    orders = len({*forms} - {"ymd"})
    days = {2: 81, 3: 9 * 12 + 9 * 31, 4: 366}
    dates = orders * (days.get(length - 4, 0) * len(years) + days.get(length - 2, 0) * min(100, len(years)))
    if "ymd" in forms and length == 8:
        dates += days[4] * len(years)
    return float(min(1.0, dates / 10**length))


_CHECKS = {
    "luhn": _Check((0, 0), _add_luhn, lambda state: state[0] == 0, lambda _: 1 / 10),
    "mod11": _Check((0, 0), _add_mod11, lambda state: state[0] == 0, lambda _: 1 / 11),
    "mod97": _Check(
        0,
        lambda state, character: (state * 10 + int(character)) % 97,
        lambda state: state == 1,
        lambda _: 1 / 97,
    ),
}
_NO_CHECK = _Check(0, lambda state, _: state, lambda _: True, lambda _: 1.0)
_POINT = _Token(frozenset({SIGN}), ".")
_GROUP = (_Token(frozenset({SIGN})), _Token(_DIGITS, least=3, most=3))
_AMOUNTS = [
    [_Token(_DIGITS, most=first), *groups, *cents]
    for first, groups in ((9, ()), (3, _GROUP), (3, 2 * _GROUP))
    for cents in ((), (_POINT, _Token(_DIGITS, least=2, most=2)))
]
_AMOUNT_COSTS = 3 * [_WHOLE_AMOUNT, 0.0]
