"""Tensors in the REST API's JSON, by row and by column."""

import threading
from typing import Any

import httpx
import numpy as np
import pytest
from werkzeug.test import Client

from digit_serving.model_server.rest import DrainMiddleware

TWO = "/v1/models/half_plus_two:predict"
TF2 = "/v1/models/tf2:predict"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "JSON Parse error: "),
        (b"{", "JSON Parse error: "),
        (b"[1]", "JSON Value: [1] Is not object"),
        ({"signature_name": 3, "instances": [1.0]}, 'JSON Value: {"signature_name": 3'),
        (
            {"signature_name": "no", "instances": [1.0]},
            'Serving signature name: "no" not found in signature def',
        ),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [1.0], "inputs": [1.0]}, "JSON Value: "),
        ({"instances": []}, "JSON Value: "),
        ({"instances": 1.0}, "JSON Value: "),
        (
            {"instances": ["a"]},
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON",
        ),
        ({"instances": [1.0, [2.0]]}, "Failed to process element: 1 of 'instances' list."),
        ({"instances": [[1.0], {"x": 1.0}]}, "Expecting value/list but got object at item 1 of input list"),
        ({"instances": [{"x": 1.0}, 1.0]}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [{"z": 1.0}]}, "Failed to process element: 0 "),
        ({"instances": [16777217]}, "Failed to process element: 0 "),
        ({"inputs": {"z": 1.0}}, "Missing named input: x in 'inputs' object."),
        ({"inputs": "a"}, 'JSON Value: "a" Type: String is not of expected type: float'),
        ({"inputs": [True]}, "JSON Value: true Type: True is not of expected type: float"),
        ({"inputs": [None]}, "JSON Value: null Type: Null is not of expected type: float"),
        ({"inputs": [1e39]}, "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        ({"inputs": [[1.0, 2.0], [3.0]]}, "Encountered list at unexpected"),
        ({"inputs": [[1.0], 2.0]}, "Encountered list at unexpected"),
    ],
)
def test_refusals(server: Any, body: Any, error: str) -> None:
    response = server.rest(TWO, body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(error)


@pytest.mark.parametrize("wrong", ["x", 1.5, True])
def test_integers_are_integers(server: Any, wrong: Any) -> None:
    body = {"signature_name": "many", "inputs": {"text": ["a"], "number": [wrong]}}
    assert server.rest(TF2, body).json()["error"].endswith("is not of expected type: int64")


def test_rows_of_one_input_named_or_not(server: Any) -> None:
    assert server.rest(TWO, {"instances": [{"x": 1.0}, {"x": 2}]}).json() == {"predictions": [2.5, 3.0]}
    assert server.rest(TWO, {"instances": [[1.0], [2.0]]}).json() == {"predictions": [[2.5], [3.0]]}
    assert server.rest(TWO, {"inputs": {"x": [1.0]}}).json() == {"outputs": [2.5]}
    assert server.rest(TWO, {"inputs": 1.0}).json() == {"outputs": 2.5}


def test_several_inputs_and_outputs_are_objects(server: Any) -> None:
    row = {"text": {"b64": "/w=="}, "number": 3}
    body = {"signature_name": "many", "instances": [row, {"text": "é", "number": 4}]}
    first, second = server.rest(TF2, body).json()["predictions"]
    assert first["raw_bytes"] == {"b64": "/w=="}
    assert second == {"text": "é", "raw_bytes": {"b64": "w6k="}, "double": 8, "odd": False}
    columns = {"signature_name": "many", "inputs": {"text": ["a"], "number": [5]}}
    assert server.rest(TF2, columns).json()["outputs"]["double"] == [10]
    plain = server.rest(TF2, {"signature_name": "many", "instances": [1]})
    assert plain.json()["error"].startswith("instances is a plain list, but expecting list of objects")


def test_a_bad_base64(server: Any) -> None:
    body = {"signature_name": "many", "inputs": {"text": [{"b64": "*"}], "number": [5]}}
    assert server.rest(TF2, body).json()["error"] == "Unable to base64 decode"


def test_an_output_without_rows(server: Any) -> None:
    body = {"signature_name": "total", "instances": [1.0, 2.0]}
    assert server.rest(TF2, body).json()["error"].startswith("Tensor name: sum has no shape information")
    assert server.rest(TF2, {"signature_name": "total", "inputs": [1.0, 2.0]}).json() == {"outputs": 3.0}


def test_numbers_that_json_lacks(server: Any) -> None:
    response = server.rest(TWO, b'{"instances": [NaN, Infinity, -Infinity]}')
    assert response.text == '{"predictions": [NaN, Infinity, -Infinity]}'


def test_floats_have_the_digits_that_matter(server: Any) -> None:
    x = np.float32(1 / 3)
    assert server.rest(TWO, {"inputs": [0.2, float(x)]}).text == '{"outputs": [2.1, 2.16666675]}'


DEFAULT = "/v1/models/half_plus_two"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/none", 404, "Could not find any versions of model none"),
        ("/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
        (f"{DEFAULT}/versions/7", 404, "Could not find version 7 of model half_plus_two"),
        (f"{DEFAULT}/versions/99999999999999999999", 400, "Failed to convert version: 9999"),
        (f"{DEFAULT}:predict", 400, f"Malformed request: GET {DEFAULT}:predict"),
        ("/v1/other", 400, "Malformed request: GET /v1/other"),
    ],
)
def test_get_refuses(server: Any, path: str, status: int, error: str) -> None:
    response = server.rest(path)
    assert response.status_code == status
    assert response.json()["error"].startswith(error)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
        (f"{DEFAULT}/versions/7:predict", 404, "Servable not found for request: Specific(half_plus_two, 7)"),
        (f"{DEFAULT}/labels/new:predict", 400, "Unrecognized servable version label: new"),
        (f"{DEFAULT}:classify", 501, "This model server"),
        (f"{DEFAULT}:regress", 501, "This model server"),
        (DEFAULT, 400, "Malformed request: POST"),
    ],
)
def test_post_refuses(server: Any, path: str, status: int, error: str) -> None:
    response = server.rest(path, {"instances": [1.0]})
    assert response.status_code == status
    assert response.json()["error"].startswith(error)


def test_versions_and_labels(server: Any) -> None:
    for path, value in (("", 2.0), ("/versions/1", 1.0), ("/labels/stable", 1.0)):
        response = server.rest(f"/v1/models/versions{path}:predict", {"instances": [0.0]})
        assert response.json() == {"predictions": [value]}
    assert server.rest("/v1/models/versions/labels/stable/metadata").json()["model_spec"]["version"] == "1"


def test_a_connection_is_kept(server: Any) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.rest_port}") as client:
        streams = {id(client.get(DEFAULT).extensions["network_stream"]) for _ in range(3)}
    assert len(streams) == 1


def test_cors(server: Any) -> None:
    response = httpx.options(f"http://127.0.0.1:{server.rest_port}{DEFAULT}:predict")
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"


def test_other_paths_are_not_found(server: Any) -> None:
    assert server.rest("/").status_code == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_hosts(server: Any, host: str) -> None:
    assert httpx.get(f"http://{host}:{server.rest_port}{DEFAULT}").status_code == 200


def test_a_timeout(serve: Any, saved_models: Any) -> None:
    server = serve(f"--model_base_path={saved_models / 'tf2'}", "--rest_api_timeout_in_ms=1")
    body = {"signature_name": "slow", "instances": [1.0]}
    assert server.rest("/v1/models/default:predict", body).status_code == 504


def test_draining_waits_for_requests_in_flight_and_refuses_new_ones() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"done"]

    middleware = DrainMiddleware(app)
    client = Client(middleware)
    in_flight = client.get("/", buffered=False)
    drained = threading.Thread(target=middleware.drain, args=[10])
    drained.start()
    drained.join(0.2)
    assert drained.is_alive()
    refused = client.get("/")
    assert refused.status_code == 503
    assert refused.json == {"error": "The server is shutting down."}
    in_flight.close()
    drained.join(5)
    assert not drained.is_alive()
