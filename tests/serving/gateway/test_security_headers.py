"""Content-Security-Policy of the pages, and CORS of the API."""

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.test_ops import DOCS_FILES, STATIC_FILES

ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def cors_http(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """Test client of a gateway that requires keys and allows one origin; its model server is unreachable."""
    file = KeyFile(tmp_path_factory.mktemp("cors") / "keys")
    file.add("shop")
    settings = Settings(model_server="127.0.0.1:1", deadline=0.5, api_keys=file.path, cors_origins=(ORIGIN,))
    return greenlet_loop.client(settings)


def cors_headers(response: TestResponse) -> list[str]:
    return [name for name, _ in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/docs/nothing",
        *(f"/static/{name}" for name in STATIC_FILES),
        *(f"/docs/{name}" for name in DOCS_FILES),
    ],
)
def test_page_policy_forbids_foreign_and_inline_content(offline_http: FlaskClient, path: str) -> None:
    headers = offline_http.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not any("unsafe" in sources or "http" in sources for sources in policy.values())
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/metrics", "/v1/models", "/nowhere"])
def test_any_response_forbids_mime_sniffing(cors_http: FlaskClient, path: str) -> None:
    assert cors_http.get(path).headers.getlist("X-Content-Type-Options") == ["nosniff"]


def test_preflight_of_allowed_origin_is_granted(cors_http: FlaskClient) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = cors_http.options("/v1/predict", headers={"Origin": ORIGIN, **preflight})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]


def test_error_for_allowed_origin_is_readable(cors_http: FlaskClient) -> None:
    answer = cors_http.get("/v1/models", headers={"Origin": ORIGIN})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", f"{ORIGIN}.evil.com", "http://app.example.com", "null", ""]
)
def test_other_origin_gets_no_cors_headers(cors_http: FlaskClient, origin: str) -> None:
    headers = {"Origin": origin}
    for answer in (
        cors_http.options("/v1/predict", headers=headers),
        cors_http.get("/v1/models", headers=headers),
        cors_http.get("/v1/models"),
    ):
        assert cors_headers(answer) == []


def test_default_settings_allow_no_origin(offline_http: FlaskClient) -> None:
    answer = offline_http.get("/v1/models", headers={"Origin": ORIGIN})
    assert cors_headers(answer) == []
