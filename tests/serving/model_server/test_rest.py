"""REST API: paths, JSON of tensors by row and by column, HTTP statuses, and metrics."""

import json
import re
from importlib.metadata import version
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from digit_serving.model_server import flags
from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.metrics import Metrics
from digit_serving.model_server.rest import RestApi

MODEL = "/v1/models/half_plus_two"
HALF_PLUS_TWO = f"{MODEL}:predict"
TF2 = "/v1/models/tf2:predict"


def post(http: Client, path: str, body: Any) -> TestResponse:
    return http.post(path, data=body if isinstance(body, bytes) else json.dumps(body).encode())


LENGTHS = "lists at the same level must have the same length and depth"
KEYS = "each entry of 'instances' must be an object with the keys "
WHICH = "the body must have either 'instances' or 'inputs'"
LIST = "'instances' must be a list with at least one entry"


@pytest.mark.parametrize(
    ("signature", "body", "error"),
    [
        (None, b"", "JSON Parse error: "),
        (None, b"\xff", "JSON Parse error: "),
        (None, b"[" * 100_000, "JSON Parse error: "),
        (None, b"[1]", "the body must be a JSON object"),
        (3, {"instances": [1.0]}, "'signature_name' must be a string"),
        ("no", {"instances": [1.0]}, 'Serving signature name: "no" not found in signature def'),
        ("", {}, WHICH),
        ("", {"instances": [1.0], "inputs": [1.0]}, WHICH),
        ("", {"instances": []}, LIST),
        ("", {"instances": 1.0}, LIST),
        ("", {"instances": ["a"]}, 'JSON Value: "a" is not of expected type: float'),
        ("", {"instances": [1.0, [2.0]]}, LENGTHS),
        ("", {"instances": [{"z": 1.0}]}, KEYS + "['x']"),
        ("", {"inputs": {"z": 1.0}}, "'inputs' lacks ['x']"),
        ("", {"inputs": [None]}, "JSON Value: null is not of expected type: float"),
        ("", {"inputs": [[1.0, 2.0], [3.0]]}, LENGTHS),
        (
            "many",
            {"inputs": {"text": ["a"], "number": [1.5]}},
            "JSON Value: 1.5 is not of expected type: int64",
        ),
        ("many", {"inputs": {"text": [{"b64": "*"}], "number": [5]}}, "Unable to base64 decode"),
        ("many", {"inputs": {"text": ["\ud800"], "number": [5]}}, "JSON Parse error: a string has half of"),
        ("many", {"inputs": [1]}, "'inputs' must be an object with the keys ['number', 'text']"),
        ("many", {"instances": [1]}, KEYS + "['number', 'text']"),
        ("images", {"inputs": [[[300] * 28] * 28]}, "a number is out of range for uint8"),
        ("images", {"inputs": [[[-1] * 28] * 28]}, "a number is out of range for uint8"),
        ("total", {"instances": [1.0]}, "the outputs have no common size in dimension 0; send 'inputs'"),
    ],
)
def test_predict_invalid_body_answers_400(http: Client, signature: Any, body: Any, error: str) -> None:
    document = body if isinstance(body, bytes) else {"signature_name": signature, **body}
    response = post(http, TF2 if signature else HALF_PLUS_TWO, document)
    assert response.status_code == 400
    assert response.get_json()["error"].startswith(error)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"instances": [NaN, Infinity, -Infinity]}', '{"predictions": [NaN, Infinity, -Infinity]}'),
        # Floats have the fewest digits that keep the value.
        ('{"inputs": [0.2, 0.3333333333333333]}', '{"outputs": [2.1, 2.1666667]}'),
        ('{"instances": [{"x": 1.0}, {"x": 2}]}', '{"predictions": [2.5, 3.0]}'),
        ('{"instances": [[1.0], [2.0]]}', '{"predictions": [[2.5], [3.0]]}'),
        ('{"inputs": {"x": [1.0]}}', '{"outputs": [2.5]}'),
    ],
)
def test_predict_valid_body_answers_json(http: Client, body: str, answer: str) -> None:
    response = post(http, HALF_PLUS_TWO, body.encode())
    assert (response.status_code, response.text) == (200, answer)


def test_predict_several_inputs_and_outputs_are_objects(http: Client) -> None:
    row = {"text": {"b64": "/w"}, "number": 3}
    body = {"signature_name": "many", "instances": [row, {"text": "é", "number": 4}]}
    first, second = post(http, TF2, body).get_json()["predictions"]
    assert first["raw_bytes"] == {"b64": "/w=="}
    assert second == {"text": "é", "raw_bytes": {"b64": "w6k="}, "double": 8, "odd": False}
    columns = {"signature_name": "many", "inputs": {"text": ["a"], "number": [5]}}
    assert post(http, TF2, columns).get_json()["outputs"]["double"] == [10]


def test_predict_scalar_output_answers_columns(http: Client) -> None:
    columns = post(http, TF2, {"signature_name": "total", "inputs": [1.0, 2.0]})
    assert columns.get_json() == {"outputs": 3.0}
    assert post(http, TF2, {"signature_name": "echo", "inputs": "é"}).get_json() == {"outputs": "é"}
    # JSON has no notation for this type.
    assert post(http, TF2, {"signature_name": "short", "inputs": [1]}).status_code == 501


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/none", 404, "Could not find any versions of model none"),
        ("GET", "/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
        ("GET", f"{MODEL}/versions/7", 404, "Could not find version 7 of model half_plus_two"),
        ("GET", f"{MODEL}/labels/new", 404, "Could not find version label new of model half_plus_two"),
        ("GET", HALF_PLUS_TWO, 400, f"Malformed request: GET {HALF_PLUS_TWO}"),
        ("POST", "/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
        ("POST", f"{MODEL}/versions/7:predict", 404, "Servable not found for request: Specific("),
        ("POST", f"{MODEL}/labels/new:predict", 400, "Unrecognized servable version label: new"),
        ("POST", f"{MODEL}:classify", 501, "This model server implements Predict only."),
    ],
)
def test_unknown_path_model_or_version_answers_error(
    http: Client, method: str, path: str, status: int, error: str
) -> None:
    response = http.open(path, method=method, data=b'{"instances": [1.0]}')
    assert response.status_code == status
    assert response.get_json()["error"].startswith(error)
    assert response.headers["content-type"] == "application/json"


def test_metadata_of_a_label_has_its_version(http: Client) -> None:
    metadata = http.get("/v1/models/versions/labels/stable/metadata").get_json()
    assert metadata["model_spec"]["version"] == "1"
    [status] = http.get("/v1/models/versions/labels/stable").get_json()["model_version_status"]
    assert status["version"] == "1"
    assert http.get("/").status_code == 404


def test_options_answers_200_with_cors_and_400_without(http: Client, core: ServerCore) -> None:
    without = Client(RestApi(flags.parse([]), core, ""))
    for client, status, origin in ((http, 200, "*"), (without, 400, None)):
        response = client.options(HALF_PLUS_TWO)
        assert (response.status_code, response.headers.get("access-control-allow-origin")) == (status, origin)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [' + b"0," * 8_388_608 + b"0]}",
        b'{"instances": [' + b'{"":0},' * 2_800_000 + b"{}]}",
        b'{"inputs": "' + b"a" * 67_108_864 + b'"}',
        b'{"inputs": [' + b"[]," * 600_000 + b"[]]}",
    ],
    ids=["values", "objects", "bytes", "empty rows"],
)
def test_predict_body_beyond_the_limit_answers_400(http: Client, body: bytes) -> None:
    response = post(http, HALF_PLUS_TWO, body)
    assert response.status_code == 400
    assert re.match(
        r"The request counts as [67]\S+ bytes; at most 67,108,864 are", response.get_json()["error"]
    )


def test_predict_largest_body_is_answered(http: Client) -> None:
    response = post(http, HALF_PLUS_TWO, b'{"inputs": [' + b"0," * 520_000 + b"0]}")
    assert len(response.get_json()["outputs"]) == 520_001


def test_predict_after_timeout_answers_504(core: ServerCore) -> None:
    http = Client(RestApi(flags.parse(["--rest_api_timeout_in_ms=1"]), core, ""))
    assert post(http, TF2, {"signature_name": "wait", "inputs": [0.01]}).status_code == 504


def samples(http: Client) -> dict[str, float]:
    """Value of each sample of the metrics page by name and labels, without timestamps."""
    page = http.get("/metrics").text
    assert "# TYPE :tensorflow:serving:request_count counter\n" in page
    found = re.findall(r"^:tensorflow:((?:serving|cc):.*) (\S+)$", page, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_metrics_count_requests_and_observe_latencies_of_predict(http: Client) -> None:
    before = samples(http)
    post(http, '/v1/models/a"b_total:predict', {"instances": [0.0]})
    http.get("/v1/models/versions/metadata")
    http.get("/v1/other")
    http.get("/v1/models")
    post(http, "/v1/models/versions:predict", {"instances": [0.0]})
    added = {name: value - before.get(name, 0) for name, value in samples(http).items()}
    for labels, count in (
        (r'model_name="a\"b_total",status="NOT_FOUND"', 1),
        ('model_name="",status="INVALID_ARGUMENT"', 2),
        ('model_name="versions",status="OK"', 2),
    ):
        assert added[f"serving:request_count{{{labels}}}"] == count
    latency = 'serving:request_latency_count{{API="{}",entrypoint="REST",model_name="versions"}}'.format
    assert added[latency("predict")] == 1
    assert latency("metadata") not in added
    runtime = 'serving:runtime_latency_bucket{API="Predict",le="+Inf",model_name="versions",runtime="TF1"}'
    assert added[runtime] == 1


def test_metrics_name_the_build(http: Client) -> None:
    versions = f'{{tensorflow="{version("tensorflow-serving-api")}",version="{version("digits")}"}}'
    assert f"digits_model_server_build_info{versions} 1.0" in http.get("/metrics").text.splitlines()


def test_metrics_count_failures_under_the_labels_of_the_alerts() -> None:
    metrics = Metrics()
    with pytest.raises(ModuleNotFoundError), metrics.load("/m/1"):
        raise ModuleNotFoundError("model_signing")
    with pytest.raises(MemoryError), metrics.request("m", "Predict", "GRPC"):
        raise MemoryError
    page = metrics.page()
    assert ':tensorflow:cc:saved_model:load_attempt_count{model_path="/m/1",status="fail"} 1.0' in page
    assert ':tensorflow:serving:request_count{model_name="m",status="UNKNOWN"} 1.0' in page
