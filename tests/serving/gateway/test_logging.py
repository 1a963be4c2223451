"""What a gateway writes to its log, read from the real process."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest
from flask.testing import FlaskClient

from digit_client.images import to_png
from digit_serving.gateway.asgi import ARRIVED_AT
from tests.processes import answers, free_port, running, wait_until


@contextmanager
def logging_gateway(target: str, capfd: pytest.CaptureFixture[str], **environment: str) -> Iterator[Any]:
    """Its client, and a function that stops it and gives the lines that it wrote."""
    port = free_port()
    settings = {"DIGITS_PORT": str(port), "DIGITS_MODEL_SERVER": target, "DIGITS_DEADLINE": "1"}
    url = f"http://127.0.0.1:{port}"
    with (
        running("gateway", environment=settings | environment) as process,
        httpx.Client(base_url=url) as http,
    ):
        wait_until(lambda: answers(f"{url}/livez"), process)
        capfd.readouterr()

        def lines() -> list[str]:
            process.terminate()
            process.wait(20)
            return capfd.readouterr().err.splitlines()

        yield http, lines


def test_the_time_before_its_turn_is_a_requests_too(
    caplog: pytest.LogCaptureFixture, http: FlaskClient, digits: Any
) -> None:
    caplog.set_level("INFO", "digit_serving.gateway.requests")
    image, waited = to_png(digits.one(7)), {ARRIVED_AT: time.perf_counter() - 2.0}
    answer = http.post("/v1/predict", data=image, content_type="image/png", environ_overrides=waited)
    assert answer.status_code == 200
    (line,) = caplog.records
    fields = line.fields  # type: ignore[attr-defined]
    assert fields["queue_ms"] >= 2000
    assert fields["ms"] >= fields["queue_ms"]


def test_a_request_is_a_line_of_json(
    model_server: str, digits: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with logging_gateway(model_server, capfd) as (http, lines):
        headers = {"Content-Type": "image/png", "X-Request-ID": "id-1"}
        answer = http.post("/v1/predict", content=to_png(digits.one(7)), headers=headers).json()
        for path in ("/livez", "/readyz", "/metrics"):
            assert http.get(path).status_code == 200
        (line,) = map(json.loads, lines())
    assert datetime.now(UTC) - datetime.fromisoformat(line.pop("time")) < timedelta(minutes=1)
    times = [line.pop(name) for name in ("decode_ms", "normalise_ms", "queue_ms", "model_server_ms")]
    assert all(each > 0 for each in times)
    assert sum(times) <= line.pop("ms")
    assert line == {
        "level": "info",
        "message": "POST /v1/predict 200",
        "request_id": "id-1",
        "method": "POST",
        "route": "/v1/predict",
        "status": 200,
        "version": 1,
        "images": 1,
        "digit": 7,
        "confidence": round(answer["predictions"][0]["confidence"], 4),
    }


def test_what_went_wrong_is_told_beside_the_request(faulty: Any, capfd: pytest.CaptureFixture[str]) -> None:
    faulty.answer = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, 'it "broke"\nbadly')
    with logging_gateway(faulty.target, capfd) as (http, lines):
        http.post("/v1/predict", content=b"x", headers={"Content-Type": "image/png", "X-Request-ID": "id-1"})
        http.post("/v1/predict", json={"instances": [[0.5] * 784]}, headers={"X-Request-ID": "id-2"})
        refused, trouble, failed = map(json.loads, lines())
    assert (refused["request_id"], refused["status"], refused["code"]) == ("id-1", 400, "not_an_image")
    assert (trouble["request_id"], trouble["level"]) == ("id-2", "warning")
    assert 'it "broke"\nbadly' in trouble["message"]
    assert (failed["request_id"], failed["status"], failed["code"]) == ("id-2", 502, "model_server_error")


def test_humans_read_a_line_without_braces(faulty: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with logging_gateway(faulty.target, capfd, DIGITS_LOG_FORMAT="pretty") as (http, lines):
        http.get("/nowhere", headers={"X-Request-ID": "id-1"})
        (line,) = lines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d INFO GET unmatched 404 request_id=id-1 ms=[\d.]+ code=not_found", line
    )


@pytest.mark.parametrize("chosen", ["json", "pretty"])
def test_an_exception_brings_its_traceback(chosen: str) -> None:
    code = """
        import logging.config
        from digit_serving.gateway import logs, settings

        logging.config.dictConfig(logs.config(settings.Settings()))
        try:
            1 / 0
        except ZeroDivisionError as error:
            logging.error("no", exc_info=error, extra={"fields": {"request_id": "id-1"}})
    """
    err = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "DIGITS_LOG_FORMAT": chosen},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    ).stderr
    first, *rest = err.splitlines()
    if chosen == "json":
        assert json.loads(first)["exception"].endswith("ZeroDivisionError: division by zero")
        assert not rest
    else:
        assert first.endswith("ERROR no request_id=id-1")
        assert rest[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_quiet_one_tells_of_no_request(
    model_server: str, capfd: pytest.CaptureFixture[str], level: str
) -> None:
    with logging_gateway(model_server, capfd, DIGITS_LOG_LEVEL=level) as (http, lines):
        assert http.get("/v1/models").status_code == 200
        assert lines() == []
