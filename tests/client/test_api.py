"""Codec of the gateway's HTTP API: request bodies, and parsing of responses."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from digit_client import ModelVersion, Prediction, Reading, TaskCard, _api
from digit_core import errors
from digit_core.results import Digit, Line, Network

MODEL = {"name": "digits", "version": 3, "labels": [*"0123456789"]}
DIGIT = {"digit": 2, "confidence": 0.91, "probabilities": [0.01] * 2 + [0.91] + [0.01] * 7}
BOXED = DIGIT | {"is_digit": 0.9, "box": [1, 2, 3, 4]}
LINE: dict[str, Any] = {"text": "2", "confidence": 0.9, "box": [1, 2, 3, 4], "digits": [BOXED]}
NOTHING: dict[str, Any] = {"text": "", "confidence": 0, "lines": []}
PREDICTION = DIGIT | {"label": "2", "index": 2}
ANSWER = {"model": MODEL, "predictions": [PREDICTION], "request_id": "r"}
QUESTION = r"is this the URL of a Digits gateway\?"
MODELS_ANSWER = {
    "name": "digits",
    "versions": [
        {"version": 2, "state": "AVAILABLE", "network": {"name": None, "accuracy": None}},
        {"version": 1, "state": "END"},
    ],
    "labels": {"stable": 2},
    "task": {
        "name": "digits",
        "labels": [*"0123456789"],
        "input": {"shape": [28, 28], "range": [0, 1]},
        "prepare": {"kind": "digits"},
    },
    "models": ["digits", "flowers"],
    "request_id": "r",
}


def parse(parser: Callable[..., Any], document: Any, **options: Any) -> Any:
    """Return what the parser makes of a response with the document."""
    return _api.parse_response(partial(parser, **options), 200, {}, json.dumps(document).encode())


def test_parse_predictions_returns_predictions() -> None:
    (prediction,) = parse(_api.parse_predictions, ANSWER)
    # The model's numbers are float32.
    probabilities = tuple(np.array(DIGIT["probabilities"], np.float32).tolist())
    assert prediction == Prediction(2, max(probabilities), probabilities, tuple("0123456789"), 3)
    assert (prediction.image, prediction.request_id) == (None, "r")


def test_parse_predictions_optional_fields_are_taken() -> None:
    expected = {
        "is_digit": 0.5,
        "image": b"image",
        "predicted_labels": ("1", "2"),
        "refusal": "several_digits",
        "count": 2,
        "box": (1, 2, 3, 4),
    }
    item = PREDICTION | expected | {"image": "aW1hZ2U="}
    (prediction,) = parse(_api.parse_predictions, ANSWER | {"predictions": [item]})
    assert {name: getattr(prediction, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("status", "problem", "error_class"),
    [
        (400, {"code": "not_an_image"}, errors.NotAnImageError),
        (502, {"code": "invalid_output"}, errors.InvalidOutputError),
        (404, {"code": "model_not_found"}, errors.ModelNotFoundError),
        (404, {"code": "feedback_unknown"}, errors.ServiceError),
        (401, {}, errors.AuthenticationError),
        (403, {}, errors.AuthenticationError),
        (429, {}, errors.OverloadedError),
        (502, {}, errors.UnavailableError),
        (503, {"code": "not_ready"}, errors.UnavailableError),
        (504, {}, errors.UnavailableError),
    ],
)
def test_parse_response_problem_raises_its_error(
    status: int, problem: dict[str, Any], error_class: type[errors.DigitError]
) -> None:
    document = problem | {"detail": "The sentence.", "request_id": "abc"}
    headers = {"retry-after": "1.5"}
    with pytest.raises(errors.DigitError, match="The sentence") as raised:
        _api.parse_response(_api.parse_predictions, status, headers, json.dumps(document).encode())
    error = raised.value
    assert (type(error), error.status, error.request_id) == (error_class, status, "abc")
    if isinstance(error, errors.ServiceError):
        assert (error.reason, error.retry_after) == (problem.get("code"), 1.5)


def test_parse_items_errors_are_in_their_places() -> None:
    error = {"error": {"code": "not_an_image", "detail": "No image.", "status": 400}}
    other = {"error": {"code": "nonsense", "title": "Something else", "request_id": "x"}}
    answer = ANSWER | {"predictions": [error, PREDICTION, other], "readings": [error] * 3}
    first, second, third = parse(_api.parse_predictions, answer, indices=[256, 259, 260])
    assert isinstance(second, Prediction)
    assert isinstance(first, errors.NotAnImageError)
    assert (first.message, first.index, first.status, first.request_id) == ("No image.", 256, 400, "r")
    assert isinstance(third, errors.ServiceError)
    assert (third.message, third.reason, third.request_id) == ("Something else", "nonsense", "x")
    assert third.status is None
    outcomes = parse(_api.parse_readings, answer, indices=[0, 1, 2])
    assert [type(each) for each in outcomes] == [errors.NotAnImageError] * 3
    with pytest.raises(errors.ServiceError, match="3 answers for 2 images"):
        parse(_api.parse_readings, answer, indices=[0, 1])


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "inf", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_parse_response_unusable_retry_after_is_ignored(value: str) -> None:
    with pytest.raises(errors.UnavailableError) as raised:
        _api.parse_response(_api.parse_models, 503, {"retry-after": value}, b"{}")
    assert raised.value.retry_after is None


@pytest.mark.parametrize(
    ("parser", "document"),
    [
        (_api.parse_predictions, []),
        (_api.parse_predictions, {}),
        *(
            (_api.parse_predictions, ANSWER | {"predictions": [item]})
            for item in (
                {"error": "x"},
                PREDICTION | {"refusal": 1},
                PREDICTION | {"index": 10},
                PREDICTION | {"index": -1},
                PREDICTION | {"probabilities": [0.5, 0.5]},
            )
        ),
        (_api.parse_readings, ANSWER | {"readings": [NOTHING | {"lines": [LINE | {"box": [1, 2, 3]}]}]}),
        (_api.parse_feedback, {"feedback": None}),
        (_api.parse_models, MODELS_ANSWER | {"versions": [{}]}),
        (_api.parse_models, MODELS_ANSWER | {"task": {}}),
    ],
)
def test_parse_response_foreign_document_raises_service_error(
    parser: Callable[..., Any], document: Any
) -> None:
    headers, content = {"content-type": "application/json; charset=utf-8"}, json.dumps(document).encode()
    with pytest.raises(errors.ServiceError, match="does not come from a Digits gateway") as raised:
        _api.parse_response(parser, 200, headers, content)
    assert raised.value.status == 200


def test_parse_answer_of_a_newer_service_takes_what_is_known() -> None:
    new = {"news": [{"unknown": True}]}
    model = MODEL | new
    predicted = PREDICTION | {"label": None, "refusal": "blurred"} | new
    (prediction,) = parse(_api.parse_predictions, {"model": model, "predictions": [predicted]} | new)
    assert (prediction.label, prediction.refusal, prediction.index) == (None, "blurred", 2)
    line = LINE | {"digits": [BOXED | new]} | new
    readings = [
        {"text": "2", "confidence": 1, "lines": [line], "refusal": None, "orientation": 45},
        NOTHING | {"refusal": "blurred"} | new,
    ]
    answer = {"model": model, "readings": readings} | new
    first, second = parse(_api.parse_readings, answer, indices=[0, 1])
    assert (first.text, first.digits[0].digit, first.refusal, first.orientation) == ("2", 2, None, 45)
    assert second.refusal == "blurred"
    task: Any = MODELS_ANSWER["task"]
    task = {**task, "input": task["input"] | new, "prepare": task["prepare"] | new} | new
    versions = [{"version": 2, "state": "SLEEPING"} | new]
    models = parse(_api.parse_models, MODELS_ANSWER | {"task": task, "versions": versions} | new)
    assert models.task == TaskCard.from_document(MODELS_ANSWER["task"])  # type: ignore[arg-type]
    assert (models.versions[0].state, models.versions[0].is_available) == ("SLEEPING", False)


ANSWERED = Prediction(0, 1.0, (1.0,), ("0",), 1, request_id="r", request_index=7)
FOUND = Digit(4, 1.0, (1.0,), is_digit=1.0, box=(1, 2, 3, 4))
READ = Reading("4", (Line("4", confidence=1.0, box=(1, 2, 3, 4), digits=(FOUND,)),), 1, confidence=1.0)


@pytest.mark.parametrize(
    ("picture", "label", "box", "fields"),
    [
        (b"file", 7, None, ("7", [])),
        (b"file", "", (1, 2, 3, 4), ("", ["1,2,3,4"])),
        (b"file", "4 2", [(1, 2, 3, 4), (5, 6, 7, 8)], ("4 2", ["1,2,3,4", "5,6,7,8"])),
        (replace(ANSWERED, picture=b"file"), None, None, ("0", [])),
        (replace(ANSWERED, picture=b"file", refusal="no_digit"), None, None, ("", [])),
        (replace(ANSWERED, picture=b"file", box=(5, 6, 7, 8)), "1", None, ("1", ["5,6,7,8"])),
        (replace(ANSWERED, picture=b"file", box=(5, 6, 7, 8)), "1", (1, 2, 3, 4), ("1", ["1,2,3,4"])),
        (replace(READ, picture=b"file"), None, None, ("4", ["1,2,3,4"])),
        (Reading("", (), 1, picture=b"file", confidence=0.0), 3, None, ("3", [])),
    ],
)
def test_encode_feedback_brings_the_picture_with_label_and_boxes(
    picture: Any, label: Any, box: Any, fields: tuple[str, list[str]]
) -> None:
    form = _api.encode_feedback(picture, label, box)
    assert form["data"] == dict(zip(("label", "box"), fields, strict=True))
    ((name, (_, data, _)),) = form["files"]
    assert (name, data) == ("image", b"file")


def test_encode_feedback_on_an_answer_without_its_picture_names_its_request() -> None:
    for label, text in ((7, "7"), (None, "0")):
        document = _api.encode_feedback(ANSWERED, label, None)["json"]
        assert document == {"request_id": "r", "index": 7, "label": text}
    with pytest.raises(ValueError, match="no picture and no request ID"):
        _api.encode_feedback(replace(ANSWERED, request_id=None), None, None)
    with pytest.raises(ValueError, match="needs a label"):
        _api.encode_feedback(b"file", None, None)


@pytest.mark.parametrize(
    ("status", "headers", "content", "message"),
    [
        (302, {"location": "https://login.test/"}, b"", "redirects to https://login.test/; use"),
        (200, {"content-type": "text/html"}, b"<html>", rf"text/html instead of JSON: {QUESTION}"),
        (400, {"content-type": "text/html"}, b"<html>", rf"answered status 400: {QUESTION}"),
        (404, {}, b'{"detail": "Not Found"}', rf"Not Found: {QUESTION}"),
    ],
)
def test_parse_response_foreign_page_raises_service_error_that_names_it(
    status: int, headers: dict[str, str], content: bytes, message: str
) -> None:
    with pytest.raises(errors.ServiceError, match=message) as raised:
        _api.parse_response(_api.parse_models, status, headers, content)
    assert (type(raised.value), raised.value.status) == (errors.ServiceError, status)


def test_parse_models_returns_typed_models() -> None:
    models = parse(_api.parse_models, MODELS_ANSWER)
    assert models.versions == (ModelVersion(2, "AVAILABLE", network=Network()), ModelVersion(1, "END"))
    assert [version.is_available for version in models.versions] == [True, False]
    assert models.task == TaskCard.from_document(MODELS_ANSWER["task"])  # type: ignore[arg-type]
    assert (models.name, models.models) == ("digits", ("digits", "flowers"))
    assert models.version_labels == models.labels == {"stable": 2}
    assert models.request_id == "r"
