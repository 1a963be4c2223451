"""What other pages may ask."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop

APP = "https://app.example.com"


@pytest.fixture
def http(model_server: str, tmp_path: Path) -> FlaskClient:
    file = KeyFile(tmp_path / "keys")
    file.add("shop")
    settings = Settings(model_server=model_server, api_keys=file.path, cors_origins=(APP,))
    return greenlet_loop.client(settings)


def test_a_page_of_an_origin_that_may_ask_is_told_so(http: FlaskClient) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = http.options("/v1/predict", headers={"Origin": APP, **preflight})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]


def test_it_may_read_errors_too(http: FlaskClient) -> None:
    answer = http.get("/v1/models", headers={"Origin": APP})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", f"{APP}.evil.com", "http://app.example.com", "null", ""]
)
def test_no_other_may(http: FlaskClient, origin: str) -> None:
    for answer in (http.options("/v1/predict", headers={"Origin": origin}), http.get("/v1/models")):
        assert not any(name.startswith("Access-Control") for name, _ in answer.headers)


def test_by_itself_nobody_may(model_server: str) -> None:
    http = greenlet_loop.client(Settings(model_server=model_server))
    answer = http.get("/v1/models", headers={"Origin": APP})
    assert not any(name.startswith("Access-Control") for name, _ in answer.headers)


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/metrics", "/v1/models", "/nowhere"])
def test_no_answer_is_taken_for_another_type(http: FlaskClient, path: str) -> None:
    with http.get(path) as answer:
        assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]
