"""API routes: predictions, models, request IDs, and the model server's faults."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_core.images import to_png
from digit_core.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.auth import KeyFile
from tests.core.grpc_model_server import request_input
from tests.serving.gateway.helpers import IMAGE, MetricsDelta, StartGateway, assert_problem, npy, predict
from tests.serving.gateway.stub_model_server import (
    Answer,
    StubModelServer,
    predict_response,
    predict_sevens,
)

ORIGIN = "https://app.example.com"


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
        "include=weights",
        "include=image,",
    ],
)
def test_predict_malformed_parameter_is_refused(offline_http: FlaskClient, query: str) -> None:
    response = offline_http.post(f"/v1/predict?{query}", data=b"")
    assert_problem(response, 400, "invalid_selection")


def test_request_id_valid_is_kept_and_another_one_replaced(offline_http: FlaskClient) -> None:
    def answered(given: str) -> str:
        return offline_http.get("/livez", headers={"X-Request-ID": given}).headers["X-Request-ID"]

    assert answered("order-66.a:b_c") == "order-66.a:b_c"
    for given in ("", "a b", "x" * 129, "é", "<script>"):
        assert re.fullmatch("[0-9a-f]{32}", answered(given))


def post(http: FlaskClient, query: str = "") -> TestResponse:
    headers = {"X-Request-ID": "id-1", "Content-Type": "application/x-npy"}
    return http.post(f"/v1/predict{query}", data=npy(IMAGE[None]), headers=headers)


@pytest.mark.parametrize(
    ("code", "status", "problem"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "model_unavailable"),
        (grpc.StatusCode.CANCELLED, 503, "model_unavailable"),
        (grpc.StatusCode.NOT_FOUND, 503, "model_unavailable"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "overloaded"),
        (grpc.StatusCode.INVALID_ARGUMENT, 502, "model_server_error"),
        (grpc.StatusCode.INTERNAL, 502, "model_server_error"),
    ],
)
def test_predict_failed_call_hides_model_server_message(
    stub: StubModelServer, stub_http: FlaskClient, code: grpc.StatusCode, status: int, problem: str
) -> None:
    stub.answer = lambda _request, context: context.abort(code, "secret of the machine room")
    response = post(stub_http)
    assert_problem(response, status, problem)
    assert response.headers.get("Retry-After") == ("1" if status in (429, 503) else None)
    assert "secret" not in response.text


def test_predict_outage_limits_retries(stub: StubModelServer, stub_http: FlaskClient) -> None:
    stub.answer = lambda _request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "")
    # Requests for different versions share no call.
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda number: post(stub_http, f"?version={number % 16}"), range(80)))
    assert 80 < stub.calls < 80 + 60


def test_predict_hanging_call_ends_at_deadline(
    stub: StubModelServer, release: threading.Event, start_gateway: StartGateway
) -> None:
    assert_problem(post(start_gateway(deadline=0.5)), 504, "deadline_exceeded")
    assert not release.is_set()
    assert stub.metadata["x-request-id"] == "id-1"


def divide_by_maximum(request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
    """Predict handler that answers 7, and NaN for black pictures."""
    rows = request_input(request)
    answers = np.eye(10, dtype=np.float32)[[7] * len(rows)]
    answers[rows.reshape(len(rows), -1).max(axis=1) == 0] = np.nan
    return predict_response(answers)


def leave_out_black(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
    """Predict handler that answers 7, and has no row for black pictures."""
    rows = request_input(request)
    lit = rows.reshape(len(rows), -1).max(axis=1) > 0
    return predict_response(np.eye(10, dtype=np.float32)[[7] * int(lit.sum())].reshape(-1, 10))


def fail_at_black(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
    """Predict handler that answers 7, and fails if one of the pictures is black."""
    rows = request_input(request)
    if not rows.reshape(len(rows), -1).max(axis=1).all():
        context.abort(grpc.StatusCode.INTERNAL, "division by zero")
    return predict_sevens(request, context)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (divide_by_maximum, "invalid_output"),
        (leave_out_black, "model_server_error"),
        (fail_at_black, "model_server_error"),
    ],
)
def test_predict_picture_that_fails_shared_calls_fails_its_caller_alone(
    stub: StubModelServer, stub_http: FlaskClient, model: Answer, code: str
) -> None:
    shared = []

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        rows = request_input(request).reshape(-1, 784).max(axis=1)
        shared.append(bool(rows.any() and not rows.all()))
        time.sleep(0.01)
        return model(request, context)

    def call(body: bytes) -> tuple[int, str | None]:
        response = stub_http.application.test_client().post("/v1/predict", data=body)
        return response.status_code, response.get_json().get("code")

    stub.answer = answer
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(call, [to_png(np.zeros_like(IMAGE)), to_png(IMAGE)] * 20))
    assert any(shared)
    assert answers == [(502, code), (200, None)] * 20


def test_predict_black_picture_has_error_in_its_place(stub: StubModelServer, stub_http: FlaskClient) -> None:
    stub.answer = divide_by_maximum
    delta = MetricsDelta(stub_http)
    seven, failed = predict(stub_http, IMAGE, np.zeros_like(IMAGE))["predictions"]
    assert (seven["digit"], failed["error"]["status"], failed["error"]["code"]) == (7, 502, "invalid_output")
    for result in ("answered", "invalid_output"):
        assert delta("digits_images_total", version="1", result=result) == 1
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
def cors_http(start_gateway: StartGateway, key_file: KeyFile) -> FlaskClient:
    """Test client of a gateway that requires keys and allows one origin."""
    key_file.add("shop")
    return start_gateway(api_keys=key_file.path, cors_origins=(ORIGIN,))


def test_cors_allowed_origin_may_ask_and_read_answers_and_errors(cors_http: FlaskClient) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    preflight = cors_http.options("/v1/predict", headers=headers)
    assert preflight.status_code == 200
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    answer = cors_http.get("/v1/models", headers={"Origin": ORIGIN})
    assert answer.status_code == 401
    assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers["Vary"]
    for each in (preflight, answer):
        assert each.headers["Access-Control-Allow-Origin"] == ORIGIN


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
