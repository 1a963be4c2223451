"""Decoding: the most probable texts of a line's places that fit an expectation."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from digit_core.reading.expectations import Expectation, Step, parse_expectation
from digit_core.reading.thresholds import THRESHOLDS
from digit_core.reading.viterbi import Places, Search, decode


def places(*symbols: dict[int, float], rivals: tuple[tuple[int, int], ...] = ()) -> Places:
    """Return places with these probabilities of symbols; the rest is that of nothing."""
    probabilities = np.zeros((len(symbols), 11))
    for row, given in zip(probabilities, symbols, strict=True):
        for symbol, probability in given.items():
            row[symbol] = probability
    excluded = np.zeros((len(symbols), len(symbols)), bool)
    for first, second in rivals:
        excluded[first, second] = excluded[second, first] = True
    count = len(symbols)
    missed = np.full(count + 1, 0.01)
    return Places(np.arange(count), np.zeros((count, 4), np.float32), probabilities, excluded, missed)


def decoded(given: Places, expect: Any = None, check: str | None = None, **options: Any) -> dict[str, float]:
    """Return each text and its probability as a multiple of that of the most probable symbols."""
    paths = decode(given, parse_expectation(expect, check), Search(**options))
    assert [path.cost for path in paths] == sorted(path.cost for path in paths)
    return {path.text: math.exp(-path.cost) for path in paths}


SURE = {4: 0.9, 9: 0.09}


def test_decode_anything_has_the_most_probable_texts_in_order() -> None:
    found = decoded(places({1: 0.98}, SURE), None)
    assert [*found][:2] == ["14", "19"]
    assert found["14"] == pytest.approx(1)
    assert found["19"] == pytest.approx(0.1)
    assert found["4"] == pytest.approx(0.02 / 0.98)


def test_decode_pattern_takes_a_weak_digit_or_drops_an_extra_one() -> None:
    line = places({1: 0.98}, {2: 0.1}, SURE)
    assert next(iter(decoded(line, "###"))) == "124"
    assert next(iter(decoded(line, "##"))) == "14"
    assert decoded(line, "##")["14"] == pytest.approx(1)
    assert decoded(line, "####") == {}


def test_decode_rivals_that_are_left_out_bound_no_text() -> None:
    line = places(*({4: 0.99} for _ in range(12)), rivals=tuple((each, each + 1) for each in range(0, 12, 2)))
    assert next(iter(decoded(line))) == "444444"
    assert next(iter(decoded(line, "######"))) == "444444"


def test_decode_check_takes_the_second_digit() -> None:
    assert [*decoded(places({1: 0.98}, {8: 0.9, 6: 0.05}, {6: 0.9}), "###", "luhn")] == ["166"]


def test_decode_stroke_is_a_sign_or_a_1() -> None:
    line = places(*({1: 0.9} for _ in range(2)), {1: 0.7, 10: 0.25}, *({2: 0.9} for _ in range(2)))
    assert next(iter(decoded(line, "##/##"))) == "11/22"
    assert next(iter(decoded(line, "#####"))) == "11122"


def test_decode_sign_that_the_pattern_lacks_is_left_out_between_digits_and_free_around_them() -> None:
    speck = {10: 0.8}
    assert decoded(places({1: 0.98}, speck, {7: 0.98}), "##.##|##")["17"] == pytest.approx(0.2 / 0.8)
    assert decoded(places(speck, {1: 0.98}, {7: 0.98}, speck), "##.##|##")["17"] == pytest.approx(1)


def test_decode_whole_amount_costs_the_same_before_signs() -> None:
    digits = places({1: 0.98}, {7: 0.98})
    with_signs = places({1: 0.98}, {7: 0.98}, *2 * ({10: 0.9},))
    assert decoded(with_signs, "amount")["17"] == pytest.approx(decoded(digits, "amount")["17"])


def test_decode_rivals_are_never_both_there() -> None:
    line = places({1: 0.9}, {7: 0.8}, {2: 0.9}, rivals=((0, 1),))
    found = decoded(line)
    assert [*found][:2] == ["12", "72"]
    assert not {text for text in found if text.startswith("17")}
    assert "172" in decoded(places({1: 0.9}, {7: 0.8}, {2: 0.9}))


def test_decode_count_and_cost_bound_the_texts() -> None:
    line = places(*(dict.fromkeys(range(10), 0.099) for _ in range(4)))
    assert len(decoded(line, "####", count=3)) == 3
    assert decoded(places({1: 0.98}), "7", max_cost=5) == {}


@pytest.mark.parametrize(
    ("expect", "check"),
    [
        ([f"{number:06}" for number in range(0, 1_000_000, 10)], None),
        ("#{0,64}|" * 6 + "#{0,64}", "mod97"),
        ("#{0,1} " * 13, "luhn"),
        (None, "mod97"),
        ("date", None),
    ],
)
def test_decode_noise_takes_a_bounded_number_of_steps(expect: Any, check: str | None) -> None:
    counted = Counted(parse_expectation(expect, check))
    noise = places(*(dict.fromkeys(range(11), 0.09) for _ in range(64)))
    decode(noise, counted)
    # Each of these automata reaches thousands of states at a place, by 11 symbols.
    assert counted.steps_taken < 64 * 2 * THRESHOLDS.max_arcs


class Counted:
    """Expectation that counts its steps."""

    def __init__(self, expectation: Expectation) -> None:
        self._expectation = expectation
        self.start = expectation.start
        self.end = expectation.end
        self.density = expectation.density
        self.steps_taken = 0

    def steps(self, state: Any, symbol: int) -> Iterator[Step]:
        for step in self._expectation.steps(state, symbol):
            self.steps_taken += 1
            yield step


def test_decode_nothing_there_has_no_text() -> None:
    assert decoded(places(), "#") == {}
    assert decoded(places()) == {}
