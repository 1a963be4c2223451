"""Expectations: patterns, checks and lists as automata over the digits and signs of a number."""

import time
from typing import Any

import pytest

from digit_core.reading.expectations import fits, parse_expectation
from digit_core.reading.peaks import SIGN
from digit_core.schema import MAX_NUMBERS


def texts(expect: Any, check: str | None, symbols: str) -> dict[str, int]:
    """Return the texts of the symbols, of which `s` is a sign, with their least numbers of missed signs."""
    expectation = parse_expectation(expect, check)
    ways: list[tuple[str, Any, int]] = [("", expectation.start, 0)]
    for symbol in symbols:
        ways = [
            (text + step.text, step.state, missed + step.missed)
            for text, state, missed in ways
            for step in expectation.steps(state, SIGN if symbol == "s" else int(symbol))
        ]
    found: dict[str, int] = {}
    for text, state, missed in ways:
        if end := expectation.end(state):
            whole = text + end.text
            found[whole] = min(missed + end.missed, found.get(whole, 99))
    return found


@pytest.mark.parametrize(
    ("expect", "symbols", "text", "missed"),
    [
        ("####", "1234", "1234", 0),
        ("#{4,6}", "12345", "12345", 0),
        ("#{3}", "123", "123", 0),
        ("20##", "2026", "2026", 0),
        ("##/##/####", "17s05s2024", "17/05/2024", 0),
        ("##.##|###.##", "123s45", "123.45", 0),
        ("## ##", "2024", "20 24", 0),
        ("$#{1,3}", "s12", "$12", 0),
        ("date", "1s5s24", "1/5/24", 0),
        ("date", "2024s02s29", "2024-02-29", 0),
        ("date", "12s31s1999", "12/31/1999", 0),
        ("amount", "12s345s67", "12345.67", 0),
        ("amount", "s12s34s", "12.34", 0),
        ("date:dmy", "17s05s2024", "17/05/2024", 0),
        ("date:ymd:dmy", "2024s05s17", "2024-05-17", 0),
        ("date:1850..1899", "1s5s1850", "1/5/1850", 0),
        ("date:dmy:1990..2030", "1s5s90", "1/5/90", 0),
        (["0012", "123"], "00s12", "0012", 0),
        ("##/##/####", "17052024", "17/05/2024", 2),
        ("####", "1s234", "1234", 0),
        ("##%", "87s", "87%", 0),
        ("##%", "8796", "87%", 0),
        ("##%", "879", "87%", 0),
        ("##%", "87", "87%", 1),
        ("100%", "10000", "100%", 0),
        ("(0##) ####", "103415678", "(034) 5678", 0),
        ("(0##) ####", "s034s5678", "(034) 5678", 0),
    ],
)
def test_expectation_fitting_symbols_have_its_text_and_missed_signs_are_counted(
    expect: Any, symbols: str, text: str, missed: int
) -> None:
    found = texts(expect, None, symbols)
    assert found[text] == min(found.values()) == missed


@pytest.mark.parametrize(
    ("expect", "misfits"),
    [
        ("####", ("123", "12345", "")),
        ("##%", ("8", "87960")),
        ("(0##)", ("20342",)),
        ("#{4,6}", ("123",)),
        ("20##", ("1926",)),
        ("##/##/####", ("1s7s05s2024",)),
        ("date", ("32s1s24", "2023s02s29", "31s06s1954", "13s13s2000", "2s9s7178", "1s1s1899", "1s1s2101")),
        ("date:dmy", ("12s31s1999", "2024s02s29")),
        ("date:mdy", ("31s12s1999",)),
        ("date:1990..2030", ("1s5s31", "1s5s1989")),
        (["0012", "123"], ("12", "1234")),
    ],
)
def test_expectation_symbols_that_do_not_fit_have_no_text(expect: Any, misfits: tuple[str, ...]) -> None:
    for symbols in misfits:
        assert 0 not in texts(expect, None, symbols).values()


@pytest.mark.parametrize(
    ("expect", "check", "right", "wrong"),
    [
        ("####", "2020..2026", "2026", "1026"),
        ("#{6}", None, "12 3456", "12345"),
        ("date", None, "2/12/2026", "32/12/2026"),
        (["0012", "123"], None, "0012", "12"),
        ("##%", None, "87%", "8796"),
    ],
)
def test_fits_text_by_its_digits(expect: Any, check: str | None, right: str, wrong: str) -> None:
    expectation = parse_expectation(expect, check)
    assert fits(right, expectation)
    assert not fits(wrong, expectation)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        # A number with Luhn's check digit, an ISBN-10, an IBAN with its letters as numbers, meter readings.
        ("luhn", "79927398713", "79927398712"),
        ("mod11", "0306406152", "0306406153"),
        ("mod97", "3214282912345698765432161182", "3214282912345698765432161183"),
        ("48210..", "48210", "48209"),
        ("..9999", "9999", "10000"),
        ("0..9999", "0000", "10000"),
    ],
)
def test_expectation_check_accepts_numbers_that_pass(check: str, right: str, wrong: str) -> None:
    for expect in (None, f"#{{{len(right)}}}|#{{{len(wrong)}}}"):
        assert right in texts(expect, check, right)
        assert wrong not in texts(expect, check, wrong)


@pytest.mark.parametrize(
    ("expect", "check", "sentence"),
    [
        ("##e#", None, r"character 3 of the pattern, 'e', is not allowed; .*signs, \{n\} or \|"),
        ("#{3,2}", None, r"character 1 of the pattern: '#\{3,2\}' allows no number of digits"),
        ("##|#{0}", None, r"character 4 of the pattern: '#\{0\}' allows no number of digits"),
        ("##|//", None, "alternative 2 of the pattern has no digit"),
        ("(%)", None, "alternative 1 of the pattern has no digit"),
        ("#{0,1} " * 28, None, "1,652 steps from a digit or sign to the next; it may have 500. Use fewer"),
        ("|".join(["#{0,64}"] * 16), None, "1,040 steps"),
        (f"#{{{10**9}}}", "luhn", "1,000,000,001 steps"),
        ("", None, "the pattern is empty; in a URL, write %23 for #"),
        (r"\d{5}", None, r"'d', is not allowed; write #\{5\} instead"),
        ("^[0-9]{4,6}$", None, r"write #\{4,6\} instead"),
        ("DD.MM.YYYY", None, r"write date or ##\.##\.#### instead"),
        ("datum", None, r"write date instead"),
        ("students.txt", None, "@students.txt on the command line, <students.txt in curl, and a list"),
        ('["12345", "23456"]', None, r"'\[', is not allowed; write one number a line, or"),
        ("12345,23456", None, r"a list, or a pattern: 12345\|23456"),
        (
            "####",
            "48210..",
            "no number of the pattern #### passes the check; its numbers are 0 to 9999; write ##### instead",
        ),
        ("2##|3##", "..199", "its numbers are 200 to 299, 300 to 399$"),
        ("2#%", "100..", "its numbers are 20 to 29; write ### instead"),
        (["12", "1a"], None, "number 2 of the list"),
        (["12", ""], None, "number 2 of the list"),
        (["12", 13], None, "number 2 of the list"),
        (["12"], "luhn", "a check goes with a pattern"),
        ("date", "luhn", "the calendar"),
        ("date:iso", None, r"forms \(dmy, mdy, ymd\) and a range of years, .* not 'iso'"),
        ("date:2030..1990", None, "date:2030..1990 has no year"),
        ("##", "md5", "one of luhn, mod11, mod97, or a range"),
        ("##", "..", "one of luhn"),
        ("##", "9..1", "the range 9..1 holds no number"),
    ],
)
def test_expectation_mistake_is_an_error_with_its_place(expect: Any, check: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_expectation(expect, check)


@pytest.mark.parametrize("pattern", ["#{0,1}" * 33, "#{2}#{0,64}", "######"])
def test_expectation_digits_beside_each_other_are_one_part_of_a_pattern(pattern: str) -> None:
    expectation = parse_expectation(pattern)
    state = expectation.start
    for digit in range(6):
        (step,) = expectation.steps(state, digit)
        state = step.state


def test_expectation_of_many_numbers_takes_no_tree() -> None:
    numbers = [f"{number:07}" for number in range(0, 10 * MAX_NUMBERS, 10)]
    started = time.process_time()
    assert texts(numbers, None, "0999990") == {"0999990": 0}
    assert texts(numbers, None, "0999991") == {}
    # A tree of dictionaries takes seconds, and 100 MB.
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("expect", "check", "length", "share"),
    [
        ("####", None, 4, 1),
        ("####", None, 5, 0),
        ("20##|2###", None, 4, 0.11),
        ("####", "luhn", 4, 0.1),
        ("##%", None, 2, 1),
        ("####", "1000..1999", 4, 0.1),
        (None, "mod97", 9, 1 / 97),
        (["0012", "0013", "123"], None, 4, 2e-4),
        ("date:ymd:2001..2002", None, 8, 2 * 366e-8),
        ("date:dmy", None, 4, 0.81),
        (None, None, 7, 1),
    ],
)
def test_density_is_the_share_of_strings_that_fit(expect: Any, check: Any, length: int, share: float) -> None:
    assert parse_expectation(expect, check).density(length) == pytest.approx(share, abs=1e-12)
