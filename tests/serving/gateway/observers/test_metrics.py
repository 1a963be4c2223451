"""Prometheus metrics of requests, calls and predictions."""

import io
import platform
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient

from digit_core.artifact.task_card import DIGITS, CardInput, TaskCard
from digit_core.images import to_png
from tests.core.drawn_numbers import draw_number
from tests.serving.gateway.helpers import MetricsDelta, StartGateway, npy
from tests.serving.gateway.stub_model_server import StubModelServer, TaskModels, TemplateModel


def test_batch_request_counts_each_image(http: FlaskClient, digits: Any) -> None:
    delta = MetricsDelta(http)
    instances = (digits.images[:20].reshape(-1, 784) / np.float32(255)).tolist()
    answers = http.post("/v1/predict", json={"instances": instances}).get_json()["predictions"]
    assert delta("digits_requests_total", route="/v1/predict", method="POST", status="200") == 1
    assert delta("digits_request_duration_seconds_count", route="/v1/predict") == 1
    for digit in range(10):
        expected = sum(answer["digit"] == digit for answer in answers)
        assert delta("digits_predictions_total", label=str(digit)) == expected
    confidences = [answer["confidence"] for answer in answers]
    assert delta("digits_confidence_sum") == pytest.approx(sum(confidences))
    for bound in ("0.5", "0.9", "0.99", "0.999", "+Inf"):
        expected = sum(confidence <= float(bound) for confidence in confidences)
        assert delta("digits_confidence_bucket", le=bound) == expected
    assert delta("digits_call_images_sum") == 20
    assert delta("digits_call_images_count") == 1
    assert delta("digits_stage_duration_seconds_count", stage="decode") == 0, "pixels need no decoding"


def test_reading_counts_its_digits_crops_and_stages(
    stub: StubModelServer, stub_http: FlaskClient, digits: Any
) -> None:
    stub.answer = model = TemplateModel(digits)
    delta = MetricsDelta(stub_http)
    number = to_png(draw_number(digits, "2026"))
    document = stub_http.post("/v1/read", data=number).get_json()
    assert document["readings"][0]["text"] == "2026"
    assert delta("digits_requests_total", route="/v1/read", status="200") == 1
    assert delta("digits_predictions_total", label="2", version="1") == 2
    assert delta("digits_predictions_total") == delta("digits_confidence_count") == 4
    assert delta("digits_reading_digits_count") == 1
    assert delta("digits_reading_digits_sum") == 4
    assert delta("digits_call_images_sum") == sum(model.sizes)
    assert delta("digits_model_duration_seconds_count", version="1") == 1
    for stage, count in (("decode", 1), ("normalise", 0), ("find", 1), ("queue", 1)):
        assert delta("digits_stage_duration_seconds_count", stage=stage) == count


def test_images_are_counted_by_their_result(
    stub: StubModelServer, stub_http: FlaskClient, digits: Any
) -> None:
    stub.answer = TemplateModel(digits, version=3)
    delta = MetricsDelta(stub_http)
    files = [to_png(draw_number(digits, number)) for number in ("27", "3", "4")]
    files += [to_png(np.zeros((28, 28), np.uint8)), b"x", b"x"]
    parts = {"image": [(io.BytesIO(file), "a.png") for file in files]}
    assert stub_http.post("/v1/predict", data=parts).status_code == 200
    counts = {"answered": 2, "several_digits": 1, "no_digit": 1, "not_an_image": 2}
    for result, count in counts.items():
        assert delta("digits_images_total", model="digits", version="3", result=result) == count
    assert delta("digits_predictions_total") == delta("digits_confidence_count") == 2
    # The error of an image that is the body is the request's; a malformed body has no image.
    stub_http.post("/v1/predict", data=b"x")
    stub_http.post("/v1/predict", data=b"{", content_type="application/json")
    assert delta("digits_images_total", result="not_an_image") == 3
    assert delta("digits_images_total") == 7


def test_failed_call_is_counted_by_model_asked(
    stub: StubModelServer, start_gateway: StartGateway, digits: Any
) -> None:
    http, image = start_gateway(), to_png(digits.one(7))
    delta = MetricsDelta(http)
    stub.answer = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, "")
    for query in ("", "?version=1", "?label=canary"):
        http.post(f"/v1/predict{query}", data=image)
    assert delta("digits_model_failures_total", model="digits", asked="default", code="service_error") == 1
    assert delta("digits_model_failures_total", asked="named", code="service_error") == 2
    assert delta("digits_model_duration_seconds_count") == 0
    stub.answer = lambda _request, context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "")
    http.post("/v1/predict", data=image)
    assert delta("digits_overload_total", route="/v1/predict") == 1
    # Another gateway asks for the card first.
    stub.answer_card = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, "")
    other = start_gateway()
    delta = MetricsDelta(other)
    other.post("/v1/predict", data=image)
    assert delta("digits_model_failures_total", model="digits", asked="default") == 1


def test_predictions_of_many_labels_share_series_beyond_the_first_hundred(
    stub: StubModelServer, start_gateway: StartGateway
) -> None:
    names = tuple(f"class {number}" for number in range(200))
    stub.answer = TaskModels(many={1: TaskCard("many", names, CardInput((8, 8), (0.0, 255.0)))})
    http = start_gateway(model_name="many")
    delta = MetricsDelta(http)
    greys = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 8, 8))
    document = http.post("/v1/predict", data=npy(greys), content_type="application/x-npy").get_json()
    indexes = [prediction["index"] for prediction in document["predictions"]]
    assert delta("digits_predictions_total", model="many", label="class 7") == indexes.count(7) > 0
    others = sum(index >= 100 for index in indexes)
    assert delta("digits_predictions_total", model="many", label="other", version="1") == others > 100
    assert "class 100" not in http.get("/metrics").text


def test_hostile_requests_create_no_time_series(
    stub: StubModelServer, stub_http: FlaskClient, digits: Any
) -> None:
    stub.answer, image = TaskModels(digits={1: DIGITS}), to_png(digits.one(7))

    def series() -> set[str]:
        return {line.rpartition(" ")[0] for line in stub_http.get("/metrics").text.splitlines()}

    def send(number: int) -> None:
        stub_http.open(f"/nowhere/{number}", method=f"METHOD{number}")
        stub_http.post(f"/v1/predict?version={number}", data=image)
        stub_http.post(f"/v1/predict?label=label{number}", data=image)
        stub_http.post(f"/v1/predict?model=model{number}", data=image)
        stub_http.post(
            f"/v1/predict?model=model{number}", data=npy(np.zeros(9)), content_type="application/x-npy"
        )
        stub_http.get("/v1/models", headers={"X-Request-ID": f"id-{number}"})

    delta = MetricsDelta(stub_http)
    for path in ("/livez", "/readyz"):
        stub_http.get(path)
    assert delta("digits_requests_total") == 0, "probes are not counted"
    send(100)
    first = series()
    for number in range(101, 105):
        send(number)
    assert series() == first
    chosen_by_callers = ("nowhere", "METHOD", "label1", "model1")
    assert not [name for name in first if any(word in name for word in chosen_by_callers)]


def test_models_that_callers_name_in_an_outage_create_no_time_series(
    stub: StubModelServer, start_gateway: StartGateway
) -> None:
    stub.answer_card = lambda _request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "")
    http = start_gateway()
    delta = MetricsDelta(http)
    for query in ("", "?model=any", "?model=other"):
        assert http.post(f"/v1/predict{query}", data=b"").status_code == 503
    assert delta("digits_model_failures_total", model="digits") == 1
    assert delta("digits_model_failures_total", model="") == 2


def test_build_info_has_versions(stub_http: FlaskClient) -> None:
    labels = f'python="{platform.python_version()}",version="{version("digits")}"'
    assert f"digits_build_info{{{labels}}} 1.0" in stub_http.get("/metrics").text.splitlines()
