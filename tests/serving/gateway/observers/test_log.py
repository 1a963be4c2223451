"""Log lines of requests and errors, as JSON and as readable text."""

import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import grpc
import httpx
import pytest
from flask.testing import FlaskClient

from digit_core.images import to_png
from digit_core.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway.observers.log import log_config, pretty_line
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.drawn_numbers import draw_number
from tests.processes import gateway_process
from tests.serving.gateway.stub_model_server import StubModelServer, TemplateModel


@contextmanager
def captured_log(log_format: Literal["json", "pretty"] = "json") -> Iterator[Callable[[], list[str]]]:
    """Yield a function that returns the lines logged in the block; errors are in this format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log_config(Settings(log_format=log_format))["formatters"]["fields"]["()"]())
    logger = logging.getLogger("digit_serving.gateway")
    logger.addHandler(handler)
    try:
        with redirect_stderr(stream):
            yield lambda: stream.getvalue().splitlines()
    finally:
        logger.removeHandler(handler)


@pytest.mark.e2e
@pytest.mark.parametrize("level", ["warning", "info"])
def test_gateway_process_logs_only_requests_as_json(
    stub: StubModelServer, digits: Any, capfd: pytest.CaptureFixture[str], level: str
) -> None:
    with gateway_process(stub.target, log_level=level) as gateway:
        capfd.readouterr()
        headers = {"Content-Type": "image/png", "X-Request-ID": "id-1"}
        image = to_png(digits.one(7))
        assert httpx.post(f"{gateway.url}/v1/predict", content=image, headers=headers).status_code == 200
        for path in ("/livez", "/metrics"):
            assert httpx.get(f"{gateway.url}{path}").status_code == 200
        gateway.process.terminate()
        gateway.process.wait(20)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    logged = [(line["level"], line["message"], line["request_id"], line["label"]) for line in lines]
    assert logged == [("info", "POST /v1/predict 200", "id-1", "7")] * (level == "info")


def test_prediction_is_logged_with_stages_and_result(
    stub: StubModelServer, stub_http: FlaskClient, digits: Any
) -> None:
    def answer_late(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        time.sleep(0.05)
        return answer_seven(request, context)

    stub.answer, answer_seven = answer_late, stub.answer
    headers = {"X-Request-ID": "id-1"}
    image = to_png(digits.one(7))
    with captured_log() as lines:
        answer = stub_http.post("/v1/predict", data=image, headers=headers).get_json()
        for path in ("/livez", "/readyz", "/metrics"):
            assert stub_http.get(path).status_code == 200
    (line,) = map(json.loads, lines())
    assert datetime.now(UTC) - datetime.fromisoformat(line.pop("time")) < timedelta(minutes=1)
    stages = [line.pop(name) for name in ("decode_ms", "queue_ms", "model_server_ms")]
    assert all(milliseconds > 0 for milliseconds in stages)
    assert sum(stages) <= line.pop("ms")
    assert stages[2] >= 50
    assert line == {
        "level": "info",
        "message": "POST /v1/predict 200",
        "request_id": "id-1",
        "method": "POST",
        "route": "/v1/predict",
        "status": 200,
        "client": "127.0.0.1",
        "model": "digits",
        "version": 1,
        "images": 1,
        "label": "7",
        "confidence": round(answer["predictions"][0]["confidence"], 4),
    }


def test_reading_is_logged_without_its_text(
    stub: StubModelServer, stub_http: FlaskClient, digits: Any
) -> None:
    stub.answer = TemplateModel(digits)
    with captured_log() as lines:
        answer = stub_http.post("/v1/read", data=to_png(draw_number(digits, "2026"))).get_json()
    assert answer["readings"][0]["text"] == "2026"
    (line,) = map(json.loads, lines())
    assert {"version": 1, "images": 1, "digits": 4}.items() <= line.items()
    assert line["find_ms"] > 0
    assert not {"text", "label", "confidence", "normalise_ms"} & line.keys()


def test_failed_request_is_logged_with_code_and_cause(stub: StubModelServer, stub_http: FlaskClient) -> None:
    stub.answer = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, 'it "broke"\nbadly')
    with captured_log() as lines:
        stub_http.post("/v1/predict", data=b"x", headers={"X-Request-ID": "id-1"})
        stub_http.post("/v1/predict", json={"instances": [[0.5] * 784]}, headers={"X-Request-ID": "id-2"})
    refused, cause, failed = map(json.loads, lines())
    assert (refused["request_id"], refused["status"], refused["code"]) == ("id-1", 400, "not_an_image")
    assert (cause["request_id"], cause["level"]) == ("id-2", "warning")
    assert 'it "broke"\nbadly' in cause["message"]
    assert (failed["request_id"], failed["status"], failed["code"]) == ("id-2", 502, "model_server_error")


def test_pretty_format_request_is_one_readable_line() -> None:
    http = greenlet_loop.client(Settings(log_format="pretty"))
    with captured_log("pretty") as lines:
        http.get("/nowhere", headers={"X-Request-ID": "id-1"})
    (line,) = lines()
    fields = r"request_id=id-1 client=127\.0\.0\.1 ms=[\d.]+ code=not_found"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d INFO GET unmatched 404 {fields}", line)


def test_pretty_line_escapes_what_would_begin_a_line_or_control_a_terminal() -> None:
    line = pretty_line(0.0, "info", "GET /", {"label": "\x1b[31mRED\r\n13:00:00 INFO FORGED"})
    assert line.isprintable()
    assert line.endswith(r"label=\x1b[31mRED\r\n13:00:00 INFO FORGED")


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_unexpected_exception_is_logged_and_not_shown(log_format: Literal["json", "pretty"]) -> None:
    app = greenlet_loop.app(Settings(log_format=log_format))
    app.get("/broken")(lambda: str(1 / 0))
    with captured_log(log_format) as lines:
        response = app.test_client().get("/broken", headers={"X-Request-ID": "id-1"})
    problem = response.get_json(force=True)
    assert (response.status_code, problem["code"]) == (500, "internal_error")
    assert "division" not in response.text
    first, *rest = lines()
    if log_format == "json":
        assert json.loads(first)["exception"].endswith("ZeroDivisionError: division by zero")
        assert len(rest) == 1, "the request itself"
    else:
        assert first.endswith("ERROR unexpected error request_id=id-1")
        assert rest[-2] == "ZeroDivisionError: division by zero"
