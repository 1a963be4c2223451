from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from digit_client.images import to_png
from digit_serving.gateway.openapi import describe
from digit_serving.gateway.settings import Settings

PAGES = {"/docs", "/docs/<name>", "/static/<name>"}
SETTINGS = Settings(max_images=7, max_body=1234)
DESCRIBED = describe(SETTINGS)


def test_every_route_and_method_is_described(http: FlaskClient) -> None:
    described = http.get("/openapi.json").get_json()
    assert described["openapi"].startswith("3.1")
    rules = [rule for rule in http.application.url_map.iter_rules() if rule.rule not in PAGES]
    assert {path: {method.upper() for method in item} for path, item in described["paths"].items()} == {
        rule.rule: (rule.methods or set()) - {"HEAD", "OPTIONS"} for rule in rules
    }


def test_every_reference_leads_somewhere() -> None:
    for reference in set(_references(DESCRIBED)):
        assert _follow(reference)


def test_every_error_has_its_codes() -> None:
    codes = {
        status: set(answer["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"])
        for status, answer in DESCRIBED["paths"]["/v1/predict"]["post"]["responses"].items()
        if status != "200"
    }
    assert codes == {
        "400": {"bad_request", "invalid_selection", "malformed_body", "not_an_image", "truncated_image"},
        "401": {"unauthorized"},
        "404": {"model_not_found"},
        "405": {"method_not_allowed"},
        "413": {"body_too_large", "too_many_images"},
        "415": {"unsupported_media_type"},
        "422": {"image_too_large", "invalid_pixels", "no_digit", "wrong_shape"},
        "429": {"overloaded", "rate_limited"},
        "500": {"internal_error"},
        "502": {"model_server_error"},
        "503": {"model_unavailable"},
        "504": {"deadline_exceeded"},
    }


def test_the_limits_are_those_of_the_settings() -> None:
    schemas = DESCRIBED["components"]["schemas"]
    assert schemas["Images"]["properties"]["images"]["maxItems"] == 7
    assert "1,234 bytes" in DESCRIBED["paths"]["/v1/predict"]["post"]["description"]


def test_every_example_is_as_described() -> None:
    for media in _media(DESCRIBED["paths"]):
        examples = [example["value"] for example in media.get("examples", {}).values()]
        for example in examples + ([media["example"]] if "example" in media else []):
            _check(example, media["schema"])
    for schema in DESCRIBED["components"]["schemas"].values():
        for field in schema["properties"].values():
            for example in field.get("examples", []) if isinstance(field, dict) else []:
                _check(example, field)


def test_the_examples_are_read(http: FlaskClient) -> None:
    content = DESCRIBED["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        (prediction,) = http.post("/v1/predict", json=example["value"]).get_json()["predictions"]
        assert prediction["digit"] == 1


@pytest.mark.parametrize("path", ["/", "/v1/models", "/livez", "/readyz", "/openapi.json"])
def test_an_answer_is_as_described(http: FlaskClient, path: str) -> None:
    answer = http.get(path, headers={"Accept": "application/json"})
    _check_answer(answer, DESCRIBED["paths"][path]["get"])


@pytest.mark.parametrize("query", ["", "?include=image"])
def test_a_prediction_is_as_described(http: FlaskClient, digits: Any, query: str) -> None:
    response = http.post(f"/v1/predict{query}", data=to_png(digits.one(1)), content_type="image/png")
    _check_answer(response, DESCRIBED["paths"]["/v1/predict"]["post"])


@pytest.mark.parametrize(
    ("query", "content_type"),
    [("", "image/png"), ("", "application/json"), ("", "text/plain"), ("?version=x", "image/png")],
)
def test_a_problem_is_as_described(http: FlaskClient, query: str, content_type: str) -> None:
    response = http.post(f"/v1/predict{query}", data=b"x", content_type=content_type)
    assert response.status_code >= 400
    _check_answer(response, DESCRIBED["paths"]["/v1/predict"]["post"])


def test_a_model_server_that_is_gone_is_described(faulty: Any, faulty_http: FlaskClient) -> None:
    faulty.close()
    for path in ("/v1/models", "/readyz"):
        response = faulty_http.get(path)
        assert response.status_code == 503
        _check_answer(response, DESCRIBED["paths"][path]["get"])


def _check_answer(response: TestResponse, operation: dict[str, Any]) -> None:
    described = operation["responses"][str(response.status_code)]
    media_type = response.content_type
    _check(response.get_json(force=True), described["content"][media_type]["schema"])
    for name, header in described["headers"].items():
        assert response.headers[name], header


def _check(document: Any, schema: dict[str, Any]) -> None:
    whole = {**schema, "components": DESCRIBED["components"]}
    jsonschema.Draft202012Validator(whole).validate(document)


def _references(node: Any) -> Iterator[str]:
    for key, value in _items(node):
        if key == "$ref":
            yield value
        yield from _references(value)


def _media(node: Any) -> Iterator[dict[str, Any]]:
    for key, value in _items(node):
        if key == "content":
            yield from value.values()
        yield from _media(value)


def _items(node: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(node, dict):
        return node.items()
    return enumerate(node) if isinstance(node, list) else ()


def _follow(reference: str) -> Any:
    node: Any = DESCRIBED
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node
