"""OpenAPI document: complete and consistent with the code; each test client checks its responses, too."""

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask.testing import FlaskClient
from werkzeug import exceptions

from digit_core.errors import (
    ClientClosedError,
    ConnectionFailedError,
    DigitError,
    ImageError,
    InvalidOptionError,
)
from digit_core.images import NoInkError, to_png
from digit_core.results import Digit, Line, Models, ModelVersion, Network, Prediction, Reading, members
from digit_serving.gateway import errors
from digit_serving.gateway.openapi import describe
from digit_serving.gateway.settings import Settings
from tests.processes import gateway_process
from tests.serving.gateway.stub_model_server import StubModelServer, TemplateModel

GENERATOR = [sys.executable, "-m", "openapi_python_client"]
UNDOCUMENTED_PATHS = {"/docs", "/docs/<name>", "/static/<name>", "/static/<version>/<name>"}
STORE = "sqlite:///feedback.db"
# Any file: keys are not read.
KEYS = Path(__file__)
DOCUMENT = describe(
    Settings(max_images=7, max_body=1234, max_pixels=5678, max_digits=9, feedback=STORE, api_keys=KEYS)
)
PATHS = DOCUMENT["paths"]
COMPONENTS = DOCUMENT["components"]
BODIES = COMPONENTS["requestBodies"]["ReadPictures"]["content"]


def values_of(key: str, node: Any) -> Iterator[Any]:
    """Yield every value of this key below the node."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values_of(key, value)


def subclasses(kind: type[Exception]) -> Iterable[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize(
    "document",
    [DOCUMENT, describe(Settings(feedback=STORE, feedback_open=True)), describe(Settings())],
    ids=["labelling", "feedback", "no feedback"],
)
def test_references_resolve_and_components_are_used(document: dict[str, Any]) -> None:
    components = {
        f"#/components/{kind}/{name}"
        for kind in ("examples", "headers", "requestBodies", "schemas")
        for name in document["components"][kind]
    }
    assert set(values_of("$ref", document)) == components


def test_document_contains_every_route_and_method(offline_http: FlaskClient) -> None:
    document = offline_http.get("/openapi.json").get_json()
    assert document["openapi"].startswith("3.1")
    assert next(iter(document["paths"])) == "/v1/predict"
    rules = [
        rule for rule in offline_http.application.url_map.iter_rules() if rule.rule not in UNDOCUMENTED_PATHS
    ]
    assert {path: {method.upper() for method in item} for path, item in document["paths"].items()} == {
        rule.rule: (rule.methods or set()) - {"HEAD", "OPTIONS"} for rule in rules
    }


def test_documented_codes_are_those_of_the_error_classes() -> None:
    documented = {
        (int(status), code)
        for item in PATHS.values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        if status != "200"
        for code in next(values_of("enum", response))
    }
    http_errors = {
        exceptions.BadRequest,
        exceptions.MethodNotAllowed,
        exceptions.RequestEntityTooLarge,
        exceptions.UnsupportedMediaType,
    }
    # ImageError is abstract; only the clients raise three of these, only functions NoInkError.
    others = {ImageError, ClientClosedError, ConnectionFailedError, InvalidOptionError, NoInkError}
    ours = {*subclasses(errors.GatewayError), *subclasses(DigitError)} - others
    kinds = {kind for kind in ours if kind.__module__.startswith("digit_")} | http_errors
    answers = [errors.problem_kind(kind) for kind in kinds]
    assert documented == {(answer.status, answer.code) for answer in answers} | {(500, "internal_error")}


@pytest.mark.parametrize("kind", [Prediction, Reading, Line, Digit, Models, ModelVersion, Network])
def test_fields_of_results_are_described_by_their_docstrings(kind: type) -> None:
    properties = COMPONENTS["schemas"][kind.__name__]["properties"]
    bare = {each.name for each in members(kind) if "description" not in properties[each.name]}
    assert bare <= {"name", "version", "versions", "lines", "digits"}


def test_limits_and_models_are_those_of_the_settings() -> None:
    for name in ("PredictImages", "ReadInstances", "ReadForm"):
        assert next(iter(values_of("maxItems", COMPONENTS["schemas"][name]))) == 7
    predict, read = (PATHS[path]["post"] for path in ("/v1/predict", "/v1/read"))
    for operation in (predict, read):
        assert "1,234 bytes" in operation["description"]
        assert "5,678 pixels" in operation["description"]
    assert "9 digits" in read["description"]
    assert "n ≤ 7" in BODIES["application/octet-stream"]["schema"]["description"]
    for names, key in ((("flowers", "digits"), "enum"), (("flowers", "*"), "examples")):
        document = describe(Settings(model_names=names))
        assert document["components"]["schemas"]["ModelName"][key] == ["digits", "flowers"]


def test_security_is_required_only_with_api_keys() -> None:
    document = describe(Settings(feedback=STORE, feedback_open=True))
    assert not any(values_of("security", document["paths"]))
    for path, item in PATHS.items():
        assert list(values_of("security", item)) == ([[{"Key": []}]] if path.startswith("/v1/") else [])


def test_examples_match_their_schemas(http: FlaskClient) -> None:
    body = BODIES["application/json"]
    examples = [(example["value"], body["schema"]) for example in COMPONENTS["examples"].values()]
    for document, _ in examples:
        (prediction,) = http.post("/v1/predict", json=document).get_json()["predictions"]
        assert prediction["digit"] == 1
    media_types = [media for contents in values_of("content", DOCUMENT) for media in contents.values()]
    examples += [(media["example"], media["schema"]) for media in media_types if "example" in media]
    for document, schema in examples:
        jsonschema_rs.validate({**schema, "components": COMPONENTS}, document)


@pytest.mark.slow
def test_client_generated_from_document_predicts(
    stub: StubModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Any
) -> None:
    generate_client(tmp_path / "generated")
    monkeypatch.syspath_prepend(tmp_path)
    generated = importlib.import_module("generated")
    models = importlib.import_module("generated.models")
    predict = importlib.import_module("generated.api.digits.predict")
    types = importlib.import_module("generated.types")
    stub.answer, seven = TemplateModel(digits), digits.one(7)
    picture = types.File(io.BytesIO(to_png(seven)), "seven.png")
    pixels = (seven / 255).ravel().tolist()
    with gateway_process(stub.target) as gateway, generated.Client(gateway.url) as client:
        for body in (picture, models.PredictForm([picture]), models.PredictInstances([pixels])):
            picture.payload.seek(0)
            answer = predict.sync(client=client, body=body, model="digits", x_request_id="id")
            assert isinstance(answer, models.Predictions)
            assert (answer.predictions[0].digit, answer.request_id) == (7, "id")
        answer = predict.sync(client=client, body=models.PredictImages(["no image"]))
        assert isinstance(answer.predictions[0], models.ImageFailure)
        answer = predict.sync(client=client, body=models.PredictImages(["x"] * 300))
        assert isinstance(answer, models.Problem)
        assert (answer.status, answer.code) == (413, "too_many_images")


def generate_client(target: Path) -> None:
    """Generate a package from the document, without warnings."""
    source = target.with_suffix(".json")
    source.write_text(json.dumps(DOCUMENT))
    options = ["--fail-on-warning", "--meta", "none"]
    completed = subprocess.run(
        [*GENERATOR, "generate", "--path", source, "--output-path", target, *options],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
