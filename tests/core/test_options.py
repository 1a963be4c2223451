"""Options: values in any form become one, and what is unknown or invalid is named with a way out."""

import json
from typing import Any

import numpy as np
import pytest

from digit_core.options import (
    DEFAULTS,
    Field,
    OptionError,
    PredictOptions,
    ReadOptions,
    described,
    parse,
)
from digit_core.reading.expectations import fits
from digit_core.results import MIN_IS_DIGIT
from digit_core.schema import MAX_NUMBERS, MAX_PATTERN

BOXES = ((1, 2, 3, 4), (5, 6, 7, 8))


@pytest.mark.parametrize(
    ("name", "values", "parsed"),
    [
        ("version", ["3", 3, 3.0, np.int64(3)], 3),
        ("label", ["canary"], "canary"),
        ("min_confidence", ["0.5", ".5", 0.5, np.float32(0.5)], 0.5),
        ("include", ["image,opinions", ["image", "opinions"], ("image", "opinions")], ("image", "opinions")),
        ("include", ["image,image", ["image"] * 3], ("image",)),
        ("expect", ["##"], "##"),
        ("expect", [["17", "42"], ("17", "42"), [17, 42], "17\n42\n", "17\r\n\r\n42"], ["17", "42"]),
        ("expect", [17, "17"], "17"),
        ("box", ["1,2,3,4", [1, 2, 3, 4], (1, 2, 3, 4), ["1,2,3,4"], [(1, 2, 3, 4)]], BOXES[:1]),
        ("box", [["1,2,3,4", "5,6,7,8"], BOXES, [[*box] for box in BOXES]], BOXES),
        ("turn", ["auto"], "auto"),
        ("valid", ["true", True], True),
        ("valid", ["false", False], False),
    ],
)
def test_parse_value_in_any_form_becomes_one_form(name: str, values: list[Any], parsed: Any) -> None:
    for value in values:
        assert parse(ReadOptions, {name: value})[name] == parsed


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        (
            "version",
            ["+3", "1_0", "", 1.5, True, -1, 2**63, "9" * 5000],
            "a whole number from 0 to 9223",
        ),
        ("label", [3], "must be a text of at most 16384 characters, not 3"),
        ("min_is_digit", [-0.01, 1.01, float("nan"), "nan", "inf", True, "high", [1]], "from 0 to 1, not "),
        ("min_confidence", [2], "must be a number from 0 to 1, not 2"),
        ("include", ["labels", "", [], 5, [[]], "image,"], "must be one or more of image, opinions, not "),
        (
            "expect",
            [5.5, True, "#" * (MAX_PATTERN + 1)],
            "must be a pattern of at most 200 characters, or a list of",
        ),
        ("expect", ["##x"], "character 3"),
        ("expect", [[], ["1"] * (MAX_NUMBERS + 1)], "a list has 1 to 100,000 numbers, not "),
        ("expect", [["17", "x"]], "number 2 of the list"),
        ("check", [48210], r"a range such as 48210\.\., .* not '48210'"),
        ("check", ["crc"], "the check must be one of luhn"),
        ("check", ["1" * (MAX_PATTERN + 1)], "must be a text of at most 200 characters"),
        ("box", ["1,2,3", (1, 2, 3), [], 5, [[1, 2], 5], 1.5], "a box has four numbers"),
        (
            "box",
            [(-1, 2, 3, 4), "-1,2,3,4"],
            "left counts from the picture's upper left corner, so it must be",
        ),
        ("box", ["1,2,x,4", "1,2,1.5,4"], "width of a box must be a whole number from 0, not "),
        ("turn", ["90", 90], 'must be "auto", not '),
        ("valid", ["yes", 1, "True", [], [True]], "must be true or false, not "),
    ],
)
def test_parse_invalid_value_is_refused_with_the_reason(name: str, values: list[Any], reason: str) -> None:
    for value in values:
        with pytest.raises(OptionError, match=reason) as raised:
            parse(ReadOptions, {name: value})
        assert raised.value.name == name
        assert len(str(raised.value)) < 200


FORM: dict[str, Any] = {
    "date": {"box": [1, 2, 3, 4], "expect": "##/##/####"},
    "number": {"box": [5, 6, 7, 8], "expect": ["17", "42"]},
}


@pytest.mark.parametrize(
    "form",
    [
        FORM,
        json.dumps(FORM),
        {"date": Field((1, 2, 3, 4), "##/##/####"), "number": Field((5, 6, 7, 8), ("17", "42"))},
    ],
)
def test_parse_form_gives_each_field_a_part_with_its_name_and_expectation(form: Any) -> None:
    options = parse(ReadOptions, {"form": form, "min_confidence": 0.5})
    assert (options["box"], options.parts) == (BOXES, 2)
    assert json.loads(options.form_to_json()) == FORM
    assert options.to_texts() == [("min_confidence", "0.5")]
    parts = [options.of_part(index) for index in range(3)]
    assert [(part.field, part["box"], part["min_confidence"]) for part in parts] == [
        ("date", BOXES[:1], 0.5),
        ("number", BOXES[1:], 0.5),
        ("date", BOXES[:1], 0.5),
    ]
    assert all(fits("42", part.expectation) == (part.field == "number") for part in parts if part.expectation)
    assert parse(ReadOptions, {"box": BOXES}).of_part(1)["box"] == BOXES[1:]
    valid = parse(ReadOptions, {"form": {"date": Field((1, 2, 3, 4), "##", valid=True)}})
    assert (valid["valid"], valid.of_part(0)["valid"]) == (False, True)


@pytest.mark.parametrize(
    ("form", "name", "reason"),
    [
        ([], "form", "must be an object of 1 to 64 fields"),
        ("{", "form", "must be an object of 1 to 64 fields"),
        ("[" * 100_000, "form", "must be an object of 1 to 64 fields"),
        ({}, "form", "must be an object of 1 to 64 fields"),
        ({f"{index}": FORM["date"] for index in range(65)}, "form", "must be an object of 1 to 64 fields"),
        ({"n" * 41: FORM["date"]}, "form", "1 to 40 characters"),
        ({"date": [1, 2, 3, 4]}, "form.date", "must be a field with a box"),
        ({"date": {"expect": "##"}}, "form.date.box", "a field has one box"),
        ({"date": {"box": BOXES}}, "form.date.box", "a field has one box"),
        ({"date": {"box": [1, 2, 3]}}, "form.date.box", "a box has four numbers"),
        ({"date": {**FORM["date"], "expekt": ""}}, "form.date.expekt", "did you mean `expect`"),
        ({"date": {**FORM["date"], "expect": "##x"}}, "form.date.expect", "character 3"),
        ({name: {"box": BOXES[0], "expect": ["1"] * 60_000} for name in "ab"}, "form", "100,000 numbers"),
    ],
)
def test_parse_invalid_form_is_refused_with_the_name_of_the_field(form: Any, name: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason) as raised:
        parse(ReadOptions, {"form": form})
    assert raised.value.name == name
    assert len(str(raised.value)) < 200


def test_parse_form_beside_options_of_its_fields_is_refused() -> None:
    with pytest.raises(OptionError, match="expect: each field of a form has its own"):
        parse(ReadOptions, {"form": FORM, "expect": "##"})


def test_parse_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(OptionError, match=r"did you mean `expect`\? Known: version, label, "):
        parse(ReadOptions, {"expct": "##"})
    with pytest.raises(OptionError, match="there is no such option; known: version, label, min_is_digit"):
        parse(PredictOptions, {"expect": "##"})
    with pytest.raises(OptionError, match="not both"):
        parse(PredictOptions, {"version": 1, "label": "canary"})


def test_options_have_defaults_expectation_and_texts() -> None:
    assert (DEFAULTS["min_is_digit"], DEFAULTS["box"], DEFAULTS["turn"]) == (MIN_IS_DIGIT, (), None)
    assert (DEFAULTS.parts, DEFAULTS.numbers, DEFAULTS.expectation) == (1, None, None)
    assert parse(ReadOptions, dict.fromkeys(described(ReadOptions))) == DEFAULTS
    options = parse(ReadOptions, {"box": BOXES, "include": "image", "expect": ["17"], "valid": True})
    assert (options.parts, options.numbers) == (2, ["17"])
    assert options.expectation
    assert sorted(options.to_texts()) == [
        ("box", "1,2,3,4"),
        ("box", "5,6,7,8"),
        ("include", "image"),
        ("valid", "true"),
    ]
    texts = dict(options.to_texts())
    assert parse(ReadOptions, texts)["include"] == options["include"]
    assert dict(parse(ReadOptions, {"min_confidence": 0.5}).to_texts()) == {"min_confidence": "0.5"}


def test_described_options_have_a_sentence_and_a_schema() -> None:
    for kind in (PredictOptions, ReadOptions):
        for option in described(kind).values():
            assert option.description.endswith(".")
            assert option.schema
