"""Results: equality, hash, immutability, and what follows from their fields."""

import dataclasses

import pytest

from digit_client import Digit, Line, Prediction, Reading

PREDICTION = Prediction(3, 0.75, (0.0, 0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), 1)


def test_prediction_equal_fields_are_equal_and_hash_alike() -> None:
    copy = dataclasses.replace(PREDICTION)
    assert copy == PREDICTION
    assert hash(copy) == hash(PREDICTION)
    assert dataclasses.replace(PREDICTION, model_version=2) != PREDICTION


def test_prediction_assignment_raises_frozen_instance_error() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PREDICTION.digit = 4  # type: ignore[misc]


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
