"""Options of a call and their limits; results and what follows from their fields."""

import dataclasses
import json

import pytest

from digit_core.errors import DeadlineExceededError, NotAnImageError, ServiceError
from digit_core.results import Digit, Line, Prediction, Reading

PROBABILITIES = (0.0, 0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
PREDICTION = Prediction(3, 0.75, PROBABILITIES, tuple("0123456789"), 1)
ROSE = Prediction(2, 0.6, (0.1, 0.1, 0.6, 0.2), ("daisy", "iris", "rose", "tulip"), 1)


@pytest.mark.parametrize(("labels", "digit"), [("0123456789", 3), ("abcdefghij", None), ("9876543210", None)])
def test_prediction_has_digit_if_labels_are_the_ten_digits(labels: str, digit: int | None) -> None:
    prediction = dataclasses.replace(PREDICTION, labels=tuple(labels))
    assert (prediction.label, prediction.digit) == (labels[3], digit)
    assert prediction.to_dict().get("digit") == digit


def test_prediction_refused_has_neither_label_nor_digit_but_numbers() -> None:
    refused = dataclasses.replace(PREDICTION, refusal="several_digits", count=2, is_digit=0.1)
    assert (refused.label, refused.digit) == (None, None)
    numbers = {"index": 3, "confidence": 0.75, "is_digit": 0.1, "probabilities": [*PROBABILITIES]}
    call = {"labels": [*"0123456789"], "model_version": 1, "request_index": 0}
    refusal = {"label": None, "digit": None, "refusal": "several_digits", "count": 2}
    assert refused.to_dict() == refusal | numbers | call


def test_prediction_repr_names_the_answer_without_the_probabilities() -> None:
    answered = dataclasses.replace(PREDICTION, request_id="r")
    assert repr(answered) == "Prediction(label='3', confidence=0.75, model_version=1, request_id='r')"
    refused = dataclasses.replace(PREDICTION, refusal="no_digit", is_digit=0.1)
    assert repr(refused) == ("Prediction(refusal='no_digit', confidence=0.75, is_digit=0.1, model_version=1)")


def test_error_str_has_status_and_request_id() -> None:
    assert str(ServiceError("Internal error.", status=500, request_id="r")) == (
        "Internal error. (status 500, request r)"
    )
    assert str(DeadlineExceededError("no answer", request_id="r")) == "no answer (request r)"
    assert str(NotAnImageError("no image")) == "no image"


def test_prediction_of_multi_label_model_has_labels_and_no_label() -> None:
    for named in (("iris", "rose"), ()):
        prediction = dataclasses.replace(ROSE, predicted_labels=named)
        assert prediction.label is None
        document = prediction.to_dict()
        assert (document["label"], document["predicted_labels"]) == (None, list(named))
    assert "predicted_labels" not in ROSE.to_dict()


def test_prediction_to_dict_has_image_as_base64_and_is_json() -> None:
    document = dataclasses.replace(PREDICTION, image=b"image", request_id="r").to_dict()
    assert (document["image"], document["request_id"]) == ("aW1hZ2U=", "r")
    assert list(document)[:3] == ["label", "digit", "refusal"]
    assert json.loads(json.dumps(document)) == document


def test_prediction_top_returns_most_probable_first_and_ties_in_order() -> None:
    ranked = [("rose", 0.6), ("tulip", 0.2), ("daisy", 0.1), ("iris", 0.1)]
    assert ROSE.top() == ROSE.top(1000) == ranked
    assert ROSE.top(2) == ranked[:2]
    assert ROSE.top(1) == [(ROSE.label, ROSE.probabilities[ROSE.index])]


@pytest.mark.parametrize(
    ("is_digit", "confidence", "expected"),
    [(0.345, 0.2, True), (0.34, 0.99, False), (None, 0.4, True), (None, 0.12, False)],
)
def test_prediction_looks_like_digit_by_is_digit_or_confidence(
    is_digit: float | None, confidence: float, expected: bool
) -> None:
    prediction = dataclasses.replace(PREDICTION, confidence=confidence, is_digit=is_digit)
    assert prediction.looks_like_digit() is expected
    assert prediction.looks_like_digit(min_is_digit=0.0) is (expected or is_digit is not None)


def test_reading_has_digits_of_all_lines_and_is_json() -> None:
    box = (0, 0, 1, 1)
    one, two = (Digit(digit, 1.0, (0.0, 1.0), box, b"image", is_digit=0.9) for digit in (1, 2))
    lines = Line("1", box, (one,), (box,), confidence=0.5), Line("2", box, (two,), confidence=0.5)
    reading = Reading("1\n2", lines, 2, "r", confidence=0.25)
    assert reading.digits == (one, two)
    document = reading.to_dict()
    assert json.loads(json.dumps(document)) == document
    number = {"digit": 1, "confidence": 1.0, "probabilities": [0.0, 1.0], "is_digit": 0.9, "box": [*box]}
    line = {"text": "1", "confidence": 0.5, "box": [*box], "digits": [number | {"image": "aW1hZ2U="}]}
    assert document.pop("lines")[0] == line | {"separators": [[*box]]}
    call = {"model_version": 2, "request_id": "r", "request_index": 0}
    read = {"text": "1\n2", "confidence": 0.25, "refusal": None, "candidates": []}
    assert document == read | call
    assert Reading("", (), 2, confidence=0.0).to_dict()["refusal"] == "no_digit"
