"""OpenAPI document: complete, consistent with the code, and true of real responses."""

import importlib
import io
import json
import os
import subprocess
import sys
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug import exceptions
from werkzeug.test import TestResponse

from digit_client import ConnectionFailedError, DigitError, ImageError
from digit_client.images import to_png
from digit_client.tfserving.protos import ModelVersionStatus
from digit_serving.feedback.store import FeedbackStore
from digit_serving.gateway import schemas
from digit_serving.gateway.auth import KeyFile
from digit_serving.gateway.context import REQUEST_ID_PATTERN
from digit_serving.gateway.errors import RETRY_AFTER_STATUSES, GatewayError, status_and_code
from digit_serving.gateway.feedback import MAX_INDEX, MAX_LABEL
from digit_serving.gateway.labelling import MAX_LIMIT, MAX_WITHIN
from digit_serving.gateway.openapi import describe
from digit_serving.gateway.query_parsing import MAX_TOP, MAX_VERSION
from digit_serving.gateway.settings import Settings
from tests.serving.gateway.conftest import (
    IMAGE,
    SHAPES,
    StartGateway,
    StubModelServer,
    TaskModels,
    TemplateModel,
    draw_number,
    gateway_process,
)
from tests.serving.gateway.test_feedback import give, give_once
from tests.serving.gateway.test_labelling import sample, shown

GENERATOR = [sys.executable, "-m", "openapi_python_client"]
UNDOCUMENTED_PATHS = {"/docs", "/docs/<name>", "/static/<name>"}
STORE = "sqlite:///feedback.db"
# Any file: keys are not read.
KEYS = Path(__file__)
DOCUMENT = describe(
    Settings(max_images=7, max_body=1234, max_pixels=5678, max_digits=9, feedback=STORE, api_keys=KEYS)
)
PATHS = DOCUMENT["paths"]
COMPONENTS = DOCUMENT["components"]
BODIES = COMPONENTS["requestBodies"]["Pictures"]["content"]


def resolve(node: Any) -> Any:
    """Follow the node's reference into the document, if it is one."""
    while isinstance(node, dict) and set(node) == {"$ref"}:
        reference, node = node["$ref"], DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    return node


def items(node: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(node, dict):
        return node.items()
    return enumerate(node) if isinstance(node, list) else ()


def values_of(key: str, node: Any) -> Iterator[Any]:
    """Yield every value of this key below the node."""
    for name, value in items(node):
        if name == key:
            yield value
        yield from values_of(key, value)


def operations() -> Iterator[dict[str, Any]]:
    for operations in PATHS.values():
        yield from operations.values()


def problems(operation: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the operation's error responses by status."""
    return {int(status): resolve(node) for status, node in operation["responses"].items() if status != "200"}


def codes(response: dict[str, Any]) -> list[str]:
    listed: list[str] = response["content"]["application/problem+json"]["schema"]["properties"]["code"][
        "enum"
    ]
    return listed


def validate(document: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator({**schema, "components": COMPONENTS}).validate(document)


def validate_response(response: TestResponse, operation: dict[str, Any]) -> None:
    documented = resolve(operation["responses"][str(response.status_code)])
    validate(response.get_json(force=True), documented["content"][response.content_type]["schema"])
    for name, header in documented["headers"].items():
        validate_header(response.headers[name], resolve(header)["schema"])


def validate_header(value: str, schema: dict[str, Any]) -> None:
    validate(int(value) if schema["type"] == "integer" else value, schema)


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def generate_client(target: Path) -> None:
    """Generate a package from the document, without warnings.

    The generator knows binary bodies only as application/octet-stream.
    """
    document = describe(Settings(feedback=STORE, api_keys=KEYS))
    bodies = document["components"]["requestBodies"]["Pictures"]["content"]
    del bodies["image/*"], bodies["application/x-npy"]
    source = target.with_suffix(".json")
    source.write_text(json.dumps(document))
    options = ["--fail-on-warning", "--meta", "none"]
    completed = subprocess.run(
        [*GENERATOR, "generate", "--path", source, "--output-path", target, *options],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_document_contains_every_route_and_method(offline_http: FlaskClient) -> None:
    document = offline_http.get("/openapi.json").get_json()
    assert document["openapi"].startswith("3.1")
    rules = [
        rule for rule in offline_http.application.url_map.iter_rules() if rule.rule not in UNDOCUMENTED_PATHS
    ]
    assert {path: {method.upper() for method in item} for path, item in document["paths"].items()} == {
        rule.rule: (rule.methods or set()) - {"HEAD", "OPTIONS"} for rule in rules
    }


@pytest.mark.parametrize(
    "document",
    [DOCUMENT, describe(Settings(feedback=STORE, feedback_open=True)), describe(Settings())],
    ids=["labelling", "feedback", "no feedback"],
)
def test_references_resolve_and_components_are_used(document: dict[str, Any]) -> None:
    references = set(values_of("$ref", document))
    assert all(resolve({"$ref": reference}) for reference in references)
    defined = {
        f"#/components/{kind}/{name}"
        for kind, components in document["components"].items()
        for name in components
        if kind != "securitySchemes"
    }
    assert references == defined


@pytest.mark.parametrize(
    ("path", "not_found", "code"),
    [
        ("/v1/predict", {"model_not_found"}, "several_digits"),
        ("/v1/read", {"model_not_found", "reading_not_supported"}, "too_many_digits"),
    ],
)
def test_recognition_errors_have_documented_codes(path: str, not_found: set[str], code: str) -> None:
    responses = problems(PATHS[path]["post"])
    assert {status: set(codes(response)) for status, response in responses.items()} == {
        400: {"bad_request", "invalid_selection", "malformed_body", "not_an_image", "truncated_image"},
        401: {"unauthorized"},
        404: not_found,
        405: {"method_not_allowed"},
        413: {"body_too_large", "too_many_images"},
        415: {"unsupported_media_type"},
        422: {"image_too_large", "invalid_pixels", "no_digit", "wrong_shape", code},
        429: {"overloaded", "rate_limited"},
        500: {"internal_error"},
        502: {"model_server_error"},
        503: {"model_unavailable"},
        504: {"deadline_exceeded"},
    }


def test_documented_codes_are_those_of_the_error_classes() -> None:
    documented = {
        (status, code)
        for operation in operations()
        for status, response in problems(operation).items()
        for code in codes(response)
    }
    http_errors = (
        exceptions.BadRequest,
        exceptions.MethodNotAllowed,
        exceptions.RequestEntityTooLarge,
        exceptions.UnsupportedMediaType,
    )
    # ImageError is abstract, and only the HTTP clients raise ConnectionFailedError.
    upstream = set(subclasses(DigitError)) - {ImageError, ConnectionFailedError}
    kinds = {*subclasses(GatewayError), *upstream, *http_errors, Exception}
    raised = {status_and_code(kind) for kind in kinds if not kind.__module__.startswith("tests.")}
    assert documented == raised


def test_error_responses_agree_with_their_examples_and_headers() -> None:
    for operation in operations():
        for status, response in problems(operation).items():
            example = response["content"]["application/problem+json"]["example"]
            assert example["status"] == status
            assert example["code"] == codes(response)[0]
            assert all(f"- `{code}`: " in response["description"] for code in codes(response))
            assert ("Retry-After" in response["headers"]) == (status in RETRY_AFTER_STATUSES)
            assert ("Allow" in response["headers"]) == (status == 405)
            assert ("WWW-Authenticate" in response["headers"]) == (status == 401)


@pytest.mark.parametrize(
    "name",
    [
        "Model",
        "Prediction",
        "Predictions",
        "RankedClass",
        "Digit",
        "Line",
        "Reading",
        "Readings",
        "ModelVersion",
        "Models",
        "FeedbackEntry",
        "FeedbackReceipt",
        "LabellingRecord",
        "LabellingRecords",
        "LabellingReceipt",
        "Index",
        "Alive",
        "Ready",
        "Problem",
    ],
)
def test_schema_has_the_properties_of_its_type(name: str) -> None:
    kind, schema = getattr(schemas, name), COMPONENTS["schemas"][name]
    assert set(schema["properties"]) == set(typing.get_type_hints(kind))
    assert set(schema["required"]) == kind.__required_keys__


def test_patterns_and_limits_are_those_of_the_code() -> None:
    schema = COMPONENTS["schemas"]
    assert COMPONENTS["headers"]["X-Request-ID"]["schema"]["pattern"] == f"^{REQUEST_ID_PATTERN}$"
    assert f"`{REQUEST_ID_PATTERN}`" in COMPONENTS["parameters"]["RequestId"]["description"]
    assert schema["ModelVersion"]["properties"]["state"]["enum"] == ModelVersionStatus.State.keys()
    assert COMPONENTS["parameters"]["Version"]["schema"]["maximum"] == MAX_VERSION
    assert COMPONENTS["parameters"]["Top"]["schema"]["maximum"] == MAX_TOP
    for name in ("FeedbackLabel", "FeedbackRight", "FeedbackEntry", "LabellingLabel", "LabellingRecord"):
        properties = schema[name]["properties"]
        assert properties["request_id"]["pattern"] == f"^{REQUEST_ID_PATTERN}$"
        assert properties["index"]["maximum"] == MAX_INDEX
    for name in ("FeedbackLabel", "LabellingLabel"):
        assert schema[name]["properties"]["label"]["maxLength"] == MAX_LABEL
    query = {
        item["name"]: item["schema"] for item in PATHS["/v1/feedback/unlabelled"]["get"]["parameters"][2:]
    }
    assert (query["limit"]["maximum"], query["within"]["maximum"]) == (MAX_LIMIT, MAX_WITHIN)


def test_limits_are_those_of_the_settings() -> None:
    for name, field in (("Images", "images"), ("Instances", "instances"), ("Form", "image")):
        assert COMPONENTS["schemas"][name]["properties"][field]["maxItems"] == 7
    predict, read = (PATHS[path]["post"]["description"] for path in ("/v1/predict", "/v1/read"))
    for description in (predict, read):
        assert "1,234 bytes" in description
        assert "5,678 pixels" in description
    assert "9 digits" in read
    assert "n ≤ 7" in BODIES["application/x-npy"]["schema"]["description"]


def test_models_are_those_of_the_settings() -> None:
    document = describe(Settings(model_names=("flowers", "digits")))
    assert document["components"]["schemas"]["ModelName"]["enum"] == ["digits", "flowers"]


def test_security_is_required_only_with_api_keys() -> None:
    for item in describe(Settings(feedback=STORE, feedback_open=True))["paths"].values():
        assert not any(operation.get("security") for operation in item.values())
    for path, item in PATHS.items():
        for operation in item.values():
            assert operation.get("security", []) == ([{"Key": []}] if path.startswith("/v1/") else [])


def test_examples_match_their_schemas() -> None:
    for contents in values_of("content", DOCUMENT):
        for media in contents.values():
            examples = [example["value"] for example in media.get("examples", {}).values()]
            for example in examples + ([media["example"]] if "example" in media else []):
                validate(example, media["schema"])
    for schema in COMPONENTS["schemas"].values():
        for field in (schema, *schema.get("properties", {}).values()):
            for example in field.get("examples", []) if isinstance(field, dict) else []:
                validate(example, field)


def test_request_examples_are_classified_as_one(http: FlaskClient) -> None:
    for example in BODIES["application/json"]["examples"].values():
        (prediction,) = http.post("/v1/predict", json=example["value"]).get_json()["predictions"]
        assert prediction["digit"] == 1


@pytest.mark.parametrize("path", ["/", "/v1/models", "/livez", "/readyz", "/openapi.json"])
def test_get_response_matches_its_schema(http: FlaskClient, path: str) -> None:
    response = http.get(path, headers={"Accept": "application/json"})
    assert response.status_code == 200
    validate_response(response, PATHS[path]["get"])


@pytest.mark.parametrize("query", ["", "?include=image", "?include=image,labels&top=3"])
def test_prediction_matches_its_schema(http: FlaskClient, digits: Any, query: str) -> None:
    response = http.post(f"/v1/predict{query}", data=to_png(digits.one(1)), content_type="image/png")
    assert response.status_code == 200
    validate_response(response, PATHS["/v1/predict"]["post"])


@pytest.mark.parametrize("query", ["", "?include=image", "?include=image,labels", "?top=2"])
def test_prediction_of_another_task_matches_its_schema(
    stub: StubModelServer, stub_http: FlaskClient, query: str
) -> None:
    stub.answer = TaskModels(digits={1: SHAPES})
    picture = to_png(np.zeros((100, 80, 3), np.uint8))
    response = stub_http.post(f"/v1/predict{query}", data=picture, content_type="image/png")
    assert response.status_code == 200
    validate_response(response, PATHS["/v1/predict"]["post"])
    response = stub_http.get("/v1/models")
    assert response.get_json()["task"] == SHAPES.to_document()
    validate_response(response, PATHS["/v1/models"]["get"])
    response = stub_http.post("/v1/read", data=picture, content_type="image/png")
    assert response.status_code == 404
    validate_response(response, PATHS["/v1/read"]["post"])


@pytest.mark.parametrize("query", ["", "?include=image"])
def test_reading_matches_its_schema(
    stub: StubModelServer, stub_http: FlaskClient, digits: Any, query: str
) -> None:
    stub.answer = TemplateModel(digits)
    number = to_png(draw_number(digits, "27", "4"))
    response = stub_http.post(f"/v1/read{query}", data=number, content_type="image/png")
    assert response.status_code == 200
    validate_response(response, PATHS["/v1/read"]["post"])


def test_refused_number_matches_its_schema(
    stub: StubModelServer, stub_http: FlaskClient, digits: Any
) -> None:
    stub.answer = TemplateModel(digits)
    number = to_png(draw_number(digits, "27"))
    response = stub_http.post("/v1/predict", data=number, content_type="image/png")
    assert response.status_code == 422
    validate_response(response, PATHS["/v1/predict"]["post"])


@pytest.mark.parametrize(
    ("query", "content_type"),
    [
        ("", "image/png"),
        ("", "application/json"),
        ("", "text/plain"),
        ("?version=x", "image/png"),
        ("?model=x", "image/png"),
    ],
)
def test_client_error_matches_its_schema(stub_http: FlaskClient, query: str, content_type: str) -> None:
    response = stub_http.post(f"/v1/predict{query}", data=b"x", content_type=content_type)
    assert 400 <= response.status_code < 500
    validate_response(response, PATHS["/v1/predict"]["post"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"label": "1"}, 200),
        ({"is": "right"}, 200),
        ({}, 400),
        ({"label": "1", "index": 1}, 404),
        ({"label": "one"}, 422),
    ],
)
def test_feedback_matches_its_schema(
    stub: StubModelServer, feedback_http: FlaskClient, body: dict[str, object], status: int
) -> None:
    operation = PATHS["/v1/feedback"]["post"]
    document: dict[str, Any] = {"request_id": "id-1", **body}
    if status != 400:
        validate(document, operation["requestBody"]["content"]["application/json"]["schema"])
    picture = {"data": to_png(IMAGE), "content_type": "image/png"}
    feedback_http.post("/v1/predict", **picture, headers={"X-Request-ID": "id-1"})
    response = (give_once if status == 404 else give)(feedback_http, **document)
    assert response.status_code == status, response.text
    validate_response(response, operation)


@pytest.mark.parametrize(
    ("key", "query", "status"), [("lab", "", 200), ("lab", "?limit=x", 400), ("shop", "", 403)]
)
def test_unlabelled_answers_match_their_schema(
    start_labelling: StartGateway,
    feedback_store: FeedbackStore,
    key_file: KeyFile,
    key: str,
    query: str,
    status: int,
) -> None:
    feedback_store.save([sample(1)])
    shop = key_file.add("shop")
    http = start_labelling()
    if key == "shop":
        http.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {shop}"
    response = http.get(f"/v1/feedback/unlabelled{query}")
    assert response.status_code == status
    validate_response(response, PATHS["/v1/feedback/unlabelled"]["get"])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"label": None}, 200),
        ({"label": "x"}, 422),
        ({"index": 1}, 404),
        ({"revision": ""}, 409),
        ({"more": 1}, 400),
    ],
)
def test_label_matches_its_schema(
    label_http: FlaskClient, feedback_store: FeedbackStore, change: dict[str, Any], status: int
) -> None:
    operation = PATHS["/v1/feedback/labels"]["post"]
    feedback_store.save([sample(1)])
    (record,) = shown(label_http)["records"]
    del record["image"]
    document = record | {"label": "7"} | change
    if status != 400:
        validate(document, operation["requestBody"]["content"]["application/json"]["schema"])
    response = label_http.post("/v1/feedback/labels", json=document)
    assert response.status_code == status, response.text
    validate_response(response, operation)


@pytest.mark.parametrize("path", ["/v1/models", "/readyz"])
def test_unreachable_model_server_error_matches_its_schema(
    stub: StubModelServer, stub_http: FlaskClient, path: str
) -> None:
    stub.close()
    response = stub_http.get(path)
    assert response.status_code == 503
    validate_response(response, PATHS[path]["get"])


def test_client_generated_from_document_predicts(
    stub: StubModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Any
) -> None:
    generate_client(tmp_path / "generated")
    monkeypatch.syspath_prepend(tmp_path)
    generated = importlib.import_module("generated")
    models = importlib.import_module("generated.models")
    predict = importlib.import_module("generated.api.digits.predict")
    types = importlib.import_module("generated.types")
    stub.answer = TemplateModel(digits)
    seven = digits.one(7)
    picture = types.File(io.BytesIO(to_png(seven)), "seven.png")
    pixels = (seven / 255).ravel().tolist()
    with gateway_process(stub.target) as gateway, generated.Client(gateway.url) as client:
        for body in (picture, models.Form([picture]), models.Instances([pixels])):
            picture.payload.seek(0)
            answer = predict.sync(client=client, body=body, model=models.ModelName.DIGITS, x_request_id="id")
            assert isinstance(answer, models.Predictions)
            assert (answer.predictions[0].digit, answer.request_id) == (7, "id")
        answer = predict.sync(client=client, body=models.Images(["no base64"]))
        assert isinstance(answer, models.Problem)
        assert (answer.status, answer.code) == (400, "malformed_body")
