"""Error handlers: problem details for every error."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from digit_core.errors import ImageError, ServiceError
from digit_serving.gateway.errors import GatewayError, problem_kind
from tests.serving.gateway.helpers import assert_problem


def kinds(base: type[Exception]) -> Iterator[type[Exception]]:
    """Yield all classes below an error."""
    for kind in base.__subclasses__():
        yield from (kind, *kinds(kind))


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status", "code"),
    [
        ("GET", "/nowhere", b"", None, 404, "not_found"),
        ("GET", "/v1/predict", b"", None, 405, "method_not_allowed"),
        ("POST", "/v1/predict", b"x", "text/plain", 415, "unsupported_media_type"),
        ("GET", "/v1/models?top=1", b"", None, 400, "invalid_selection"),
        ("GET", "/v1/models?model=digits&model=digits", b"", None, 400, "invalid_selection"),
        ("POST", "/v1/read?include=labels", b"x", "image/png", 400, "invalid_selection"),
        ("POST", "/v1/predict", bytes(9_000_000), "image/png", 413, "body_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_error_any_is_problem_json(
    stub_http: FlaskClient, method: str, path: str, body: bytes, content_type: Any, status: int, code: str
) -> None:
    response = stub_http.open(path, method=method, data=body, content_type=content_type)
    document = assert_problem(response, status, code)
    assert document.keys() == {"type", "title", "status", "code", "detail", "request_id"}
    assert "browser" not in document["detail"]
    assert "URL" not in document["detail"]
    if status == 405:
        assert response.headers["Allow"] == "OPTIONS, POST"
        assert document["detail"].endswith("it supports OPTIONS, POST.")
    if status == 413:
        assert document["detail"] == "The body is larger than 8.4 MB."


def test_kind_of_every_error_has_a_code_and_a_sentence() -> None:
    for kind in (*kinds(GatewayError), *kinds(ImageError), *kinds(ServiceError)):
        problem = problem_kind(kind)
        assert re.fullmatch(r"[a-z_]+", problem.code), kind
        assert re.fullmatch(r"[A-Z].*\.", problem.detail), kind
