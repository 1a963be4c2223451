import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digit_client import _api
from digit_client._exceptions import (
    DigitError,
    ImageError,
    ModelNotFoundError,
    NoDigitError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)

ANSWER = {
    "model": {"name": "digits", "version": 3},
    "predictions": [{"digit": 2, "confidence": 0.91, "probabilities": [0.01] * 2 + [0.91] + [0.01] * 7}],
    "request_id": "r",
}


def test_an_answer_becomes_predictions() -> None:
    (prediction,) = _api.read_predictions(200, {}, json.dumps(ANSWER).encode())
    assert (prediction.digit, prediction.confidence, prediction.model_version) == (2, 0.91, 3)
    assert prediction.probabilities[2] == 0.91


@pytest.mark.parametrize(
    ("status", "problem", "kind"),
    [
        (422, {"code": "no_digit", "detail": "Nothing there."}, NoDigitError),
        (400, {"code": "malformed_body"}, ServiceError),
        (404, {"code": "model_not_found"}, ModelNotFoundError),
        (429, {}, OverloadedError),
        (502, {}, UnavailableError),
        (503, {"code": "not_ready"}, UnavailableError),
        (504, {}, UnavailableError),
        (500, {}, ServiceError),
    ],
)
def test_a_problem_becomes_its_error(status: int, problem: dict[str, Any], kind: type[DigitError]) -> None:
    with pytest.raises(DigitError) as raised:
        _api.read_predictions(status, {}, json.dumps(problem).encode())
    assert type(raised.value) is kind


def test_an_error_tells_what_the_service_told() -> None:
    problem = {"code": "not_ready", "detail": "No model yet.", "request_id": "abc"}
    with pytest.raises(UnavailableError, match="No model yet") as raised:
        _api.read(503, {"retry-after": "1.5"}, json.dumps(problem).encode())
    error = raised.value
    assert (error.status, error.reason, error.request_id, error.retry_after) == (503, "not_ready", "abc", 1.5)


def test_an_image_s_index_counts_from_the_first_request() -> None:
    problem = {"code": "no_digit", "detail": "Nothing there.", "index": 3}
    with pytest.raises(NoDigitError) as raised:
        _api.read_predictions(422, {}, json.dumps(problem).encode(), first=256)
    assert raised.value.index == 259


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "inf", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_an_odd_retry_after_is_ignored(value: str) -> None:
    with pytest.raises(UnavailableError) as raised:
        _api.read(503, {"retry-after": value}, b"{}")
    assert raised.value.retry_after is None


@given(st.integers(200, 599), st.binary(max_size=50) | st.sampled_from([b"[]", b"{}", b"null"]))
def test_whatever_answers_only_this_package_s_errors_are_raised(status: int, content: bytes) -> None:
    with pytest.raises(DigitError):
        _api.read_predictions(status, {}, content)


@pytest.mark.parametrize(
    "document", [[], {}, {"model": 1}, {"model": {"version": 1}, "predictions": [{"digit": "x"}]}]
)
def test_another_service_s_answer_is_an_error(document: Any) -> None:
    with pytest.raises(ServiceError, match="not that of a digits gateway"):
        _api.read_predictions(200, {}, json.dumps(document).encode())


def test_many_images_go_in_few_requests() -> None:
    bodies = list(_api.several(np.zeros((3, 4), np.uint8) for _ in range(600)))
    assert [len(body.arguments["files"]) for body in bodies] == [256, 256, 88]
    assert [body.first for body in bodies] == [0, 256, 512]


def test_large_images_are_spread_over_requests() -> None:
    bodies = list(_api.several([b"x" * 4_000_000] * 3))
    assert [len(body.arguments["files"]) for body in bodies] == [1, 1, 1]


def test_an_array_of_digits_goes_as_one() -> None:
    images = np.arange(300 * 784, dtype=np.uint32).astype(np.uint8).reshape(300, 28, 28)
    bodies = list(_api.several(images))
    assert [body.first for body in bodies] == [0, 256]
    sent = np.concatenate([np.load(io.BytesIO(body.arguments["content"])) for body in bodies])
    assert np.array_equal(sent, images)


def test_no_images_are_no_request() -> None:
    assert list(_api.several([])) == []


def test_an_image_that_is_none_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ImageError):
        _api.single(np.zeros(7))
