from typing import Any

import grpc
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from digit_client.arrays import to_png


def test_a_gateway_before_a_model_is_ready(http: FlaskClient) -> None:
    assert http.get("/livez").get_json() == {"status": "alive"}
    assert http.get("/readyz").get_json() == {"status": "ready", "versions": [1]}


def test_what_was_answered_is_counted(http: FlaskClient, digits: Any) -> None:
    def count(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(http.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    before = [
        count("digits_requests_total", route="/v1/predict", method="POST", status="200"),
        count("digits_predictions_total", version="1"),
        count("digits_request_duration_seconds_count", route="/v1/predict"),
    ]
    http.post("/v1/predict", data=to_png(digits.one(7)), content_type="image/png")
    after = [
        count("digits_requests_total", route="/v1/predict", method="POST", status="200"),
        count("digits_predictions_total", version="1"),
        count("digits_request_duration_seconds_count", route="/v1/predict"),
    ]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]


def test_failed_calls_are_counted_by_who_was_asked(
    faulty: Any, faulty_http: FlaskClient, digits: Any
) -> None:
    faulty.answer = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, "")
    image = to_png(digits.one(7))
    for query in ("", "?version=1", "?label=canary"):
        faulty_http.post(f"/v1/predict{query}", data=image, content_type="image/png")
    lines = faulty_http.get("/metrics").text.splitlines()
    assert 'digits_model_failures_total{asked="default",code="service_error"} 1.0' in lines
    assert 'digits_model_failures_total{asked="named",code="service_error"} 2.0' in lines


def test_hostile_paths_and_methods_make_no_new_series(http: FlaskClient) -> None:
    for number in range(20):
        http.open(f"/nowhere/{number}", method=f"METHOD{number}")
    lines = http.get("/metrics").text.splitlines()
    assert len([line for line in lines if line.startswith("digits_requests_total") and "other" in line]) == 1
    assert not [line for line in lines if "nowhere" in line]
