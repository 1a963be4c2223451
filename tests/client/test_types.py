"""Results: equality, hash, immutability, and what follows from their fields."""

import dataclasses

import pytest

from digit_client import Digit, Line, Prediction, Reading

PROBABILITIES = (0.0, 0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
PREDICTION = Prediction(3, 0.75, PROBABILITIES, tuple("0123456789"), 1)
ROSE = Prediction(2, 0.6, (0.1, 0.1, 0.6, 0.2), ("daisy", "iris", "rose", "tulip"), 1)


def test_prediction_equal_fields_are_equal_and_hash_alike() -> None:
    copy = dataclasses.replace(PREDICTION)
    assert copy == PREDICTION
    assert hash(copy) == hash(PREDICTION)
    assert dataclasses.replace(PREDICTION, model_version=2) != PREDICTION


def test_prediction_assignment_raises_frozen_instance_error() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PREDICTION.index = 4  # type: ignore[misc]


def test_prediction_of_digits_has_label_and_digit() -> None:
    assert (PREDICTION.label, PREDICTION.digit) == ("3", 3)


@pytest.mark.parametrize("labels", [tuple("abcdefghij"), tuple("9876543210")], ids=["letters", "other-order"])
def test_prediction_of_other_labels_has_no_digit(labels: tuple[str, ...]) -> None:
    prediction = dataclasses.replace(PREDICTION, labels=labels)
    assert prediction.label == labels[3]
    with pytest.raises(AttributeError, match=f"label is '{labels[3]}'"):
        prediction.digit  # noqa: B018
    assert not hasattr(prediction, "digit")


def test_prediction_top_returns_most_probable_first_and_ties_in_order() -> None:
    ranked = [("rose", 0.6), ("tulip", 0.2), ("daisy", 0.1), ("iris", 0.1)]
    assert ROSE.top() == ROSE.top(1000) == ranked
    assert ROSE.top(2) == ranked[:2]
    assert ROSE.top(1) == [(ROSE.label, ROSE.probabilities[ROSE.index])]


@pytest.mark.parametrize(
    ("is_digit", "confidence", "expected"),
    [(0.5, 0.2, True), (0.49, 0.99, False), (None, 0.4, True), (None, 0.12, False)],
)
def test_prediction_is_accepted_by_is_digit_or_confidence(
    is_digit: float | None, confidence: float, expected: bool
) -> None:
    prediction = dataclasses.replace(PREDICTION, confidence=confidence, is_digit=is_digit)
    assert prediction.is_accepted is expected


def test_reading_digits_are_those_of_all_lines_in_order() -> None:
    one, two, three = (Digit(digit, 1.0, (), (0, 0, 1, 1)) for digit in (1, 2, 3))
    lines = Line("12", (0, 0, 1, 1), (one, two)), Line("3", (0, 0, 1, 1), (three,))
    assert Reading("12\n3", lines, 1).digits == (one, two, three)
