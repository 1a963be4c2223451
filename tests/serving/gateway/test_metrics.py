import platform
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from digit_client.images import to_png


class Counted:
    """What a gateway counted since this was made."""

    def __init__(self, http: FlaskClient) -> None:
        self._http = http
        self._before = self._samples()

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        return sum(
            value - self._before.get(key, 0)
            for key, value in self._samples().items()
            if key[0] == name and labels.items() <= set(key[1])
        )

    def _samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = text_string_to_metric_families(self._http.get("/metrics").text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def test_what_was_answered_is_counted(http: FlaskClient, digits: Any) -> None:
    counted = Counted(http)
    http.post("/v1/predict", data=to_png(digits.one(7)), content_type="image/png")
    assert counted("digits_requests_total", route="/v1/predict", method="POST", status="200") == 1
    assert counted("digits_request_duration_seconds_count", route="/v1/predict") == 1
    assert counted("digits_predictions_total", version="1", digit="7") == 1
    assert counted("digits_confidence_count", version="1") == 1
    assert counted("digits_model_duration_seconds_count", version="1") == 1
    assert counted("digits_call_images_sum") == counted("digits_call_images_count") == 1


def test_the_stages_are_parts_of_the_whole(http: FlaskClient, digits: Any) -> None:
    counted = Counted(http)
    for label in range(10):
        http.post("/v1/predict", data=to_png(digits.one(label)), content_type="image/png")
    stages = [
        counted("digits_stage_duration_seconds_sum", stage=stage)
        for stage in ("decode", "normalise", "queue")
    ]
    stages.append(counted("digits_model_duration_seconds_sum"))
    assert all(seconds > 0 for seconds in stages)
    assert sum(stages) < counted("digits_request_duration_seconds_sum", route="/v1/predict")


def test_each_image_of_a_request_counts(http: FlaskClient, digits: Any) -> None:
    counted = Counted(http)
    instances = (digits.images[:20].reshape(-1, 784) / np.float32(255)).tolist()
    answers = http.post("/v1/predict", json={"instances": instances}).get_json()["predictions"]
    assert counted("digits_requests_total", route="/v1/predict") == 1
    for digit in range(10):
        expected = sum(answer["digit"] == digit for answer in answers)
        assert counted("digits_predictions_total", digit=str(digit)) == expected
    confidences = [answer["confidence"] for answer in answers]
    assert counted("digits_confidence_sum") == pytest.approx(sum(confidences))
    for most in ("0.5", "0.9", "0.99", "0.999", "+Inf"):
        expected = sum(confidence <= float(most) for confidence in confidences)
        assert counted("digits_confidence_bucket", le=most) == expected
    assert counted("digits_call_images_sum") == 20
    assert counted("digits_call_images_count") == 1
    assert counted("digits_stage_duration_seconds_count", stage="decode") == 0, "numbers need none"


@pytest.mark.parametrize(
    ("body", "code"), [(b"x", "not_an_image"), (to_png(np.zeros((28, 28), np.uint8)), "no_digit")]
)
def test_refused_images_are_counted_by_reason(http: FlaskClient, body: bytes, code: str) -> None:
    counted = Counted(http)
    http.post("/v1/predict", data=body, content_type="image/png")
    http.post("/v1/predict", data=b"{", content_type="application/json")
    assert counted("digits_images_refused_total", code=code) == counted("digits_images_refused_total") == 1
    assert counted("digits_predictions_total") == 0


def test_failed_calls_are_counted_by_who_was_asked(
    faulty: Any, faulty_http: FlaskClient, digits: Any
) -> None:
    faulty.answer = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, "")
    counted = Counted(faulty_http)
    image = to_png(digits.one(7))
    for query in ("", "?version=1", "?label=canary"):
        faulty_http.post(f"/v1/predict{query}", data=image, content_type="image/png")
    assert counted("digits_model_failures_total", asked="default", code="service_error") == 1
    assert counted("digits_model_failures_total", asked="named", code="service_error") == 2
    assert counted("digits_model_duration_seconds_count") == 0


def test_hostile_requests_make_no_new_series(http: FlaskClient, digits: Any) -> None:
    image = to_png(digits.one(7))

    def names() -> set[str]:
        return {line.rpartition(" ")[0] for line in http.get("/metrics").text.splitlines()}

    def ask(number: int) -> None:
        http.open(f"/nowhere/{number}", method=f"METHOD{number}")
        http.post(f"/v1/predict?version={number}", data=image, content_type="image/png")
        http.post(f"/v1/predict?label=label{number}", data=image, content_type="image/png")
        http.get("/v1/models", headers={"X-Request-ID": f"id-{number}"})

    ask(100)
    once = names()
    for number in range(101, 120):
        ask(number)
    assert names() == once
    assert not [name for name in once if "nowhere" in name or "METHOD" in name or "label1" in name]


def test_health_checks_are_not_counted(http: FlaskClient) -> None:
    counted = Counted(http)
    for path in ("/livez", "/readyz", "/metrics"):
        http.get(path)
    assert counted("digits_requests_total") == 0


def test_it_says_what_runs(http: FlaskClient) -> None:
    labels = f'python="{platform.python_version()}",version="{version("digit-serving")}"'
    assert f"digits_build_info{{{labels}}} 1.0" in http.get("/metrics").text.splitlines()
