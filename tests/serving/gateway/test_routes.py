"""API routes: predictions, models, request IDs, and the model server's faults."""

import base64
import io
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_core.images import to_png
from digit_core.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.grpc_model_server import request_input
from tests.serving.gateway.conftest import IMAGE, npy
from tests.serving.gateway.stub_model_server import StubModelServer, predict_response
from tests.serving.gateway.test_observe import MetricsDelta

ORIGIN = "https://app.example.com"


def assert_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = response.get_json(force=True)
    assert document["code"] == code
    assert document["status"] == status
    assert document["request_id"] == response.headers["X-Request-ID"]
    assert re.fullmatch(r"[A-Z].*\.", document["detail"], re.DOTALL), "detail is a sentence"
    return document


def test_predict_many_images_gives_same_digits_in_every_format(http: FlaskClient, digits: Any) -> None:
    images = np.concatenate([digits.typical(label, 2) for label in range(10)])
    files = [to_png(image) for image in images]
    texts = [base64.b64encode(file).decode() for file in files]
    instances = (images.reshape(-1, 784) / np.float32(255)).tolist()
    responses = [
        http.post("/v1/predict", data={"image": [(io.BytesIO(file), "a.png") for file in files]}),
        http.post("/v1/predict", json={"images": texts}),
        http.post("/v1/predict", json={"images": [f"data:image/png;base64,{text}" for text in texts]}),
        http.post("/v1/predict", json={"instances": instances}),
        http.post("/v1/predict", data=npy(images), content_type="application/x-npy"),
        http.post("/v1/predict", data=npy(np.asfortranarray(images)), content_type="application/x-npy"),
    ]
    expected = [prediction["digit"] for prediction in responses[0].get_json()["predictions"]]
    assert np.mean(expected == np.repeat(np.arange(10), 2)) > 0.8
    for response in responses:
        assert [prediction["digit"] for prediction in response.get_json()["predictions"]] == expected


@pytest.mark.parametrize(
    "query",
    [
        "version=x",
        "version=-1",
        "version=",
        "version=1&label=a",
        f"version={2**63}",
        f"version={'1' * 5000}",
        "top=0",
        "top=1001",
        "top=",
        "top=-1",
        "top=five",
        "include=weights",
        "include=",
        "include=image,",
        "include=image,weights",
    ],
)
def test_predict_malformed_parameter_is_refused(offline_http: FlaskClient, query: str) -> None:
    response = offline_http.post(f"/v1/predict?{query}", data=b"")
    assert_problem(response, 400, "invalid_selection")


def test_request_id_valid_is_kept(offline_http: FlaskClient) -> None:
    response = offline_http.get("/livez", headers={"X-Request-ID": "order-66.a:b_c"})
    assert response.headers["X-Request-ID"] == "order-66.a:b_c"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "<script>"])
def test_request_id_invalid_is_replaced(offline_http: FlaskClient, given: str) -> None:
    response = offline_http.get("/livez", headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


def post(http: FlaskClient) -> TestResponse:
    headers = {"X-Request-ID": "id-1"}
    return http.post("/v1/predict", data=npy(IMAGE[None]), content_type="application/x-npy", headers=headers)


@pytest.mark.parametrize(
    ("code", "status", "problem", "retry_after"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "model_unavailable", "1"),
        (grpc.StatusCode.CANCELLED, 503, "model_unavailable", "1"),
        (grpc.StatusCode.NOT_FOUND, 503, "model_unavailable", "1"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "overloaded", "1"),
        (grpc.StatusCode.INVALID_ARGUMENT, 502, "model_server_error", None),
        (grpc.StatusCode.INTERNAL, 502, "model_server_error", None),
    ],
)
def test_predict_failed_call_hides_model_server_message(
    stub: StubModelServer,
    stub_http: FlaskClient,
    code: grpc.StatusCode,
    status: int,
    problem: str,
    retry_after: str | None,
) -> None:
    def fail(_request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        context.abort(code, "secret of the machine room")

    stub.answer = fail
    response = post(stub_http)
    assert_problem(response, status, problem)
    assert response.headers.get("Retry-After") == retry_after
    assert "secret" not in response.text


def test_predict_outage_limits_retries(stub: StubModelServer, stub_http: FlaskClient) -> None:
    stub.answer = lambda _request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "")
    for _ in range(200):
        post(stub_http)
    assert stub.calls < 260


def test_predict_hanging_call_ends_at_deadline(stub: StubModelServer, hasty_http: FlaskClient) -> None:
    hangs, end = threading.Event(), threading.Event()

    def hang(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        hangs.set()
        end.wait(10)
        hangs.clear()
        return divide_by_maximum(request, context)

    stub.answer = hang
    try:
        assert_problem(post(hasty_http), 504, "deadline_exceeded")
        assert hangs.is_set(), "answered during the call"
    finally:
        end.set()


def test_predict_invalid_response_is_bad_gateway(stub: StubModelServer, stub_http: FlaskClient) -> None:
    stub.answer = lambda _request, _context: predict_response(np.full((1, 9), 1 / 9, np.float32))
    assert_problem(post(stub_http), 502, "model_server_error")
    assert stub.metadata["x-request-id"] == "id-1"


def divide_by_maximum(request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
    """Predict handler that answers 7, and NaN for black pictures."""
    rows = request_input(request)
    answers = np.eye(10, dtype=np.float32)[[7] * len(rows)]
    answers[rows.reshape(len(rows), -1).max(axis=1) == 0] = np.nan
    return predict_response(answers)


def test_predict_black_pictures_of_one_caller_fail_alone_in_shared_calls(
    stub: StubModelServer, stub_http: FlaskClient
) -> None:
    shared = []

    def predict(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        rows = request_input(request).reshape(-1, 784).max(axis=1)
        shared.append(bool(rows.any() and not rows.all()))
        time.sleep(0.01)
        return divide_by_maximum(request, context)

    def call(body: bytes) -> tuple[int, str | None]:
        response = stub_http.application.test_client().post("/v1/predict", data=body)
        return response.status_code, response.get_json().get("code")

    stub.answer = predict
    bodies = [to_png(np.zeros_like(IMAGE)), to_png(IMAGE)] * 40
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(call, bodies))
    assert any(shared)
    assert answers == [(502, "invalid_output"), (200, None)] * 40


def test_predict_black_picture_has_error_in_its_place(stub: StubModelServer, stub_http: FlaskClient) -> None:
    stub.answer = divide_by_maximum
    delta = MetricsDelta(stub_http)
    pictures = [base64.b64encode(to_png(picture)).decode() for picture in (IMAGE, np.zeros_like(IMAGE))]
    seven, failed = stub_http.post("/v1/predict", json={"images": pictures}).get_json()["predictions"]
    assert (seven["digit"], failed["error"]["status"], failed["error"]["code"]) == (7, 502, "invalid_output")
    assert delta("digits_images_total", version="1", result="answered") == 1
    assert delta("digits_images_total", version="1", result="invalid_output") == 1
    assert delta("digits_model_failures_total", asked="default", code="invalid_output") == 1


def test_routes_unreachable_model_server_are_unavailable(
    stub: StubModelServer, stub_http: FlaskClient
) -> None:
    stub.close()
    assert_problem(post(stub_http), 503, "model_unavailable")
    assert_problem(stub_http.get("/v1/models"), 503, "model_unavailable")
    problem = assert_problem(stub_http.get("/readyz"), 503, "not_ready")
    assert problem["detail"] == "The model server does not answer."
    assert stub_http.get("/livez").status_code == 200


@pytest.fixture
def cors_http(key_file: KeyFile) -> FlaskClient:
    """Test client of a gateway that requires keys and allows one origin."""
    key_file.add("shop")
    settings: dict[str, Any] = {"api_keys": key_file.path, "cors_origins": (ORIGIN,)}
    return greenlet_loop.client(Settings(model_server="127.0.0.1:1", **settings))


def test_cors_preflight_of_allowed_origin_is_granted(cors_http: FlaskClient) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    answer = cors_http.options("/v1/predict", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]


def test_cors_error_for_allowed_origin_is_readable(cors_http: FlaskClient) -> None:
    answer = cors_http.get("/v1/models", headers={"Origin": ORIGIN})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("origin", ["https://evil.example.com", f"{ORIGIN}.evil.com", "null", ""])
def test_cors_other_origin_gets_no_headers(
    cors_http: FlaskClient, offline_http: FlaskClient, origin: str
) -> None:
    for answer in (
        cors_http.options("/v1/predict", headers={"Origin": origin}),
        cors_http.get("/v1/models", headers={"Origin": origin}),
        cors_http.get("/v1/models"),
        offline_http.get("/v1/models", headers={"Origin": ORIGIN}),
    ):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
