"""Task cards: documents, what follows from them, and the sentence for each mistake."""

import copy
import json
import math
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_core.artifact.task_card import (
    DIGIT_LABELS,
    DIGITS,
    MAX_LABELS,
    MAX_SIDE,
    NAME_RULE,
    CardInput,
    CardPreparation,
    TaskCard,
    TaskCardError,
    is_name,
)

DOCUMENT: dict[str, Any] = {
    "name": "flowers",
    "labels": ["daisy", "rose", "tulip"],
    "input": {"shape": [180, 240, 3], "range": [-1, 1]},
    "prepare": {"kind": "resize", "fit": "pad", "color": "rgb"},
}
CARD = TaskCard(
    "flowers", ("daisy", "rose", "tulip"), CardInput((180, 240, 3), (-1.0, 1.0)), CardPreparation(fit="pad")
)

SIDES = st.integers(1, MAX_SIDE)
LABELS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9),
    min_size=2,
    max_size=20,
    unique=True,
).map(tuple)
RANGES = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2, unique=True).map(
    lambda bounds: tuple(sorted(bounds))
)
CARDS = st.builds(
    TaskCard,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True).filter(is_name),
    LABELS,
    st.builds(
        CardInput, st.tuples(SIDES, SIDES) | st.tuples(SIDES, SIDES, st.sampled_from([1, 3, 4])), RANGES
    ),
    st.builds(
        CardPreparation,
        st.sampled_from(["resize", "none"]),
        st.sampled_from(["crop", "pad", "stretch"]),
        interpolation=st.sampled_from(["area", "bilinear"]),
        exif=st.booleans(),
    ),
    refuse_below=st.floats(0, 1),
) | st.builds(replace, st.just(DIGITS), labels=LABELS)

ABSENT = object()


def changed(key: str, value: Any) -> dict[str, Any]:
    """Return the flowers' document with another value of a key such as `input.shape`, or without the key."""
    document = copy.deepcopy(DOCUMENT)
    *tables, last = key.split(".")
    table = reduce(dict.__getitem__, tables, document)
    table[last] = value
    if value is ABSENT:
        del table[last]
    return document


def test_document_is_that_of_the_card() -> None:
    assert TaskCard.from_document(DOCUMENT) == CARD
    assert CARD.to_document() == DOCUMENT


def test_from_document_without_prepare_stretches_as_keras_does() -> None:
    card = TaskCard.from_document(changed("prepare", ABSENT))
    assert (card.kind, card.prepare.fit, card.prepare.color) == ("resize", "stretch", "rgb")


@settings(max_examples=30)
@given(CARDS)
def test_to_document_json_round_trip_returns_equal_card(card: TaskCard) -> None:
    assert TaskCard.from_document(json.loads(json.dumps(card.to_document()))) == card


def test_switches_travel_only_if_they_have_not_their_default() -> None:
    switches: dict[str, Any] = {"interpolation": "bilinear", "alpha": "ignore", "exif": False}
    card = replace(CARD, prepare=replace(CARD.prepare, **switches))
    assert card.to_document()["prepare"] == DOCUMENT["prepare"] | switches
    assert TaskCard.from_document(card.to_document()) == card


def test_multi_label_card_has_a_threshold_for_each_label() -> None:
    multi_label = DOCUMENT | {"output": "multi-label"}
    card = TaskCard.from_document(multi_label)
    assert (card.is_multi_label, card.threshold) == (True, (0.5, 0.5, 0.5))
    assert TaskCard.from_document(multi_label | {"threshold": 0.2}).threshold == (0.2, 0.2, 0.2)
    card = TaskCard.from_document(multi_label | {"threshold": [0, 0.3, 1]})
    assert card.threshold == (0, 0.3, 1)
    assert TaskCard.from_document(json.loads(json.dumps(card.to_document()))) == card


_LABELS = "; write the names of the classes as a list of strings"
_SHAPE = "; write [height, width] or [height, width, channels]"
_RANGE = "; write the values of black and white, such as [0, 255]"
_THRESHOLD = "; write one number from 0 to 1, or a list with one for each label"
_SHARE = "; write a number from 0 to 1"


@pytest.mark.parametrize(
    ("shape", "color"),
    [([8, 6], "grey"), ([8, 6, 1], "grey"), ([8, 6, 3], "rgb"), ([8, 6, 4], "rgba")],
    ids=str,
)
def test_color_follows_shape_and_may_be_named(shape: list[int], color: str) -> None:
    document = changed("prepare", ABSENT) | {"input": {"shape": shape, "range": [0, 1]}}
    assert TaskCard.from_document(document).prepare.color == color
    assert TaskCard.from_document(document | {"prepare": {"color": color}}).prepare.color == color


def test_instance_shape_is_flat_for_digits_only() -> None:
    assert CARD.instance_shape == CARD.shape
    assert DIGITS.instance_shape == (math.prod(DIGITS.shape),)
    assert replace(DIGITS, prepare=replace(DIGITS.prepare, kind="resize")).instance_shape == DIGITS.shape


@pytest.mark.parametrize(
    ("card", "has_digit_labels", "reads_numbers"),
    [
        (DIGITS, True, True),
        (replace(DIGITS, labels=tuple("abcdefghij")), False, False),
        (replace(DIGITS, prepare=replace(DIGITS.prepare, kind="resize")), True, False),
        (replace(DIGITS, labels=DIGIT_LABELS[::-1]), False, False),
        (replace(DIGITS, threshold=(0.5,) * 10), True, False),
    ],
)
def test_reads_numbers_needs_kind_and_labels_of_digits(
    card: TaskCard, has_digit_labels: bool, reads_numbers: bool
) -> None:
    assert (card.has_digit_labels, card.reads_numbers) == (has_digit_labels, reads_numbers)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "roses"}, True),
        ({"input": CardInput((180, 240, 1), CARD.range)}, False),
        ({"input": CardInput(CARD.shape, (0.0, 1.0))}, False),
        ({"prepare": CardPreparation("none", "pad")}, False),
        ({"prepare": CardPreparation("resize", "crop")}, False),
        ({"prepare": CardPreparation("resize", "pad", alpha="ignore")}, False),
    ],
    ids=str,
)
def test_prepares_as_ignores_names(change: dict[str, Any], expected: bool) -> None:
    assert replace(CARD, **change).prepares_as(CARD) is expected
    assert not replace(DIGITS, labels=tuple("abcdefghij")).prepares_as(DIGITS)
    framed = replace(DIGITS, prepare=CardPreparation("digits", "pad"))
    assert framed.prepares_as(DIGITS), "digits are framed, whatever the fit"


MULTI_LABEL = DOCUMENT | {"output": "multi-label"}
NO_NAME = f"{NAME_RULE}, unlike"
FALLING = "range must rise from black to white, such as [0, 255], not be"


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            changed("size", 1),
            "the task card has the unknown key 'size'; known: input, labels, name, output, prepare, "
            "refuse_below, threshold",
        ),
        (changed("input.size", 1), "[input] has the unknown key 'size'; known: range, shape"),
        (
            changed("prepare.a", 1),
            "[prepare] has the unknown key 'a'; known: alpha, color, exif, fit, interpolation, kind",
        ),
        (changed("output", "softmax"), "output must be 'multi-label', not 'softmax'"),
        (changed("threshold", 0.5), "threshold needs output = 'multi-label'"),
        (
            MULTI_LABEL | {"threshold": [1]},
            "threshold must be one number, or one for each of 3 labels",
        ),
        (MULTI_LABEL | {"threshold": 2}, "threshold[0] is invalid: expected `float` <= 1.0" + _THRESHOLD),
        (
            MULTI_LABEL | {"threshold": [0, 1, -1]},
            "threshold[2] is invalid: expected `float` >= 0.0" + _THRESHOLD,
        ),
        (changed("refuse_below", math.nan), "refuse_below is invalid: expected `float` >= 0.0" + _SHARE),
        (changed("refuse_below", "half"), "refuse_below is invalid: expected `float`, got `str`" + _SHARE),
        *(
            (
                document | {"refuse_below": 0.5},
                "refuse_below is for other tasks: digits are refused by is_digit, and the threshold says "
                "which labels of a multi-label task are named",
            )
            for document in (DIGITS.to_document(), MULTI_LABEL)
        ),
        (changed("name", ABSENT), "the task card lacks 'name'"),
        (changed("input.range", ABSENT), "[input] lacks 'range'"),
        (changed("input", [180, 180]), "[input] must be a table"),
        (changed("prepare.kind", "x"), "kind must be 'digits' or 'resize' or 'none', not 'x'"),
        (changed("prepare.color", "grey"), "color 'grey' contradicts the shape [180, 240, 3]"),
        *(
            (changed("name", name), f"{NO_NAME} {name!r}")
            for name in ("", "../etc", "rosé", "2024", "-a", "a" * 64, "reader")
        ),
        (changed("name", 5), "name is invalid: expected `str`, got `int`"),
        (changed("labels", "abc"), "labels is invalid: expected `array`, got `str`" + _LABELS),
        (changed("labels", [0, 1]), "labels[0] is invalid: expected `str`, got `int`" + _LABELS),
        (changed("labels", ["rose"]), "labels is invalid: expected `array` of length >= 2" + _LABELS),
        (
            changed("labels", ["a"] * (MAX_LABELS + 1)),
            "labels is invalid: expected `array` of length <= 25000" + _LABELS,
        ),
        (changed("labels", ["rose", " "]), "a label must be a printable name, not ' '"),
        (changed("labels", ["rose", "a\nb"]), r"a label must be a printable name, not 'a\nb'"),
        (changed("labels", ["rose", "daisy", "rose"]), "the label 'rose' occurs twice"),
        (changed("input.shape", [180]), "shape is invalid: expected `array` of length >= 2" + _SHAPE),
        (changed("input.shape", [180, 0]), "shape[1] is invalid: expected `int` >= 1" + _SHAPE),
        (changed("input.shape", [4096, 180]), "shape[0] is invalid: expected `int` <= 2048" + _SHAPE),
        (changed("input.shape", [180, 180.5]), "shape[1] is invalid: expected `int`, got `float`" + _SHAPE),
        (changed("input.shape", [180, None, 3]), "shape[1] is invalid: expected `int`, got `null`" + _SHAPE),
        (changed("input.shape", 180), "shape is invalid: expected `array`, got `int`" + _SHAPE),
        (
            changed("input.shape", [180, 180, 2]),
            "shape must have 1, 3 (rgb) or 4 (rgba) channels, not 2",
        ),
        (
            changed("prepare", {"kind": "digits"}),
            "kind 'digits' needs the shape [28, 28], not [180, 240, 3]",
        ),
        (changed("input.range", [0]), "range is invalid: expected `array` of length 2, got 1" + _RANGE),
        (changed("input.range", 255), "range is invalid: expected `array`, got `int`" + _RANGE),
        (changed("input.range", ["0", "1"]), "range[0] is invalid: expected `float`, got `str`" + _RANGE),
        (changed("input.range", [False, True]), "range[0] is invalid: expected `float`, got `bool`" + _RANGE),
        (changed("input.range", [0, 10**400]), "range[1] is invalid: number out of range" + _RANGE),
        *(
            (changed("input.range", bounds), f"{FALLING} {bounds}")
            for bounds in ([1, 1], [255, 0], [0, math.inf], [math.nan, 1])
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_from_document_mistake_raises_its_sentence(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TaskCardError) as raised:
        TaskCard.from_document(document)
    assert str(raised.value) == sentence
