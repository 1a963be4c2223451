"""REST API: paths, JSON of tensors by row and by column, and HTTP statuses."""

import json
import threading
from typing import Any

import numpy as np
import pytest
from werkzeug.test import Client, TestResponse

from digit_client import TaskCard
from digit_serving.model_server import flags
from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.rest import DrainMiddleware, RestApi
from tests.serving.model_servers import COLORS

MODEL = "/v1/models/half_plus_two"
HALF_PLUS_TWO = f"{MODEL}:predict"
TF2 = "/v1/models/tf2:predict"
COLORS_PREDICT = "/v1/models/colors:predict"


def post(http: Client, path: str, body: Any) -> TestResponse:
    return http.post(path, data=body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "JSON Parse error: "),
        (b"{", "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: "),
        (b"[1]", "the body must be a JSON object"),
        ({"signature_name": 3, "instances": [1.0]}, "'signature_name' must be a string"),
        (
            {"signature_name": "no", "instances": [1.0]},
            'Serving signature name: "no" not found in signature def',
        ),
        ({}, "the body must have either 'instances' or 'inputs'"),
        ({"instances": [1.0], "inputs": [1.0]}, "the body must have either 'instances' or 'inputs'"),
        ({"instances": []}, "'instances' must be a list with at least one entry"),
        ({"instances": 1.0}, "'instances' must be a list with at least one entry"),
        (
            {"instances": ["a"]},
            "entry 0 of 'instances': JSON Value: \"a\" is not of expected type: float",
        ),
        ({"instances": [1.0, [2.0]]}, "entry 1 of 'instances': expected the shape (), not (1,)"),
        ({"instances": [[1.0], {"x": 1.0}]}, "entry 1 of 'instances': expected a value"),
        ({"instances": [{"x": 1.0}, 1.0]}, "entry 1 of 'instances': expected an object with the keys ['x']"),
        ({"instances": [{"z": 1.0}]}, "entry 0 of 'instances': expected an object with the keys ['x']"),
        ({"inputs": {"z": 1.0}}, "'inputs' lacks the input x"),
        ({"inputs": "a"}, 'JSON Value: "a" is not of expected type: float'),
        ({"inputs": [True]}, "JSON Value: true is not of expected type: float"),
        ({"inputs": [None]}, "JSON Value: null is not of expected type: float"),
        ({"inputs": [1e39]}, "a number is out of range for float"),
        ({"inputs": [[1.0, 2.0], [3.0]]}, "lists of different lengths or depths"),
        ({"inputs": [[1.0], 2.0]}, "lists of different lengths or depths"),
    ],
)
def test_predict_invalid_body_answers_400(http: Client, body: Any, error: str) -> None:
    response = post(http, HALF_PLUS_TWO, body)
    assert response.status_code == 400
    assert response.get_json()["error"].startswith(error)


@pytest.mark.parametrize("wrong", ["x", 1.5, True])
def test_predict_non_integer_for_integer_answers_400(http: Client, wrong: Any) -> None:
    body = {"signature_name": "many", "inputs": {"text": ["a"], "number": [wrong]}}
    assert post(http, TF2, body).get_json()["error"].endswith("is not of expected type: int64")


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**70])
def test_predict_integer_of_more_than_32_bits_answers_400(http: Client, number: int) -> None:
    response = post(http, TF2, {"signature_name": "images", "inputs": [[[number] * 28] * 28]})
    assert response.status_code == 400
    assert response.get_json()["error"] == "a number is out of range for uint8"


@pytest.mark.parametrize("number", [300, -1, 2**31 - 1, -(2**31)])
def test_predict_integer_of_32_bits_for_uint8_wraps(http: Client, number: int) -> None:
    def answer(value: int) -> Any:
        return post(http, TF2, {"signature_name": "images", "inputs": [[[value] * 28] * 28]}).get_json()

    assert answer(number) == answer(number % 256)


def test_predict_rows_and_columns_of_one_input_named_or_not(http: Client) -> None:
    for body, answer in (
        ({"instances": [{"x": 1.0}, {"x": 2}]}, {"predictions": [2.5, 3.0]}),
        ({"instances": [[1.0], [2.0]]}, {"predictions": [[2.5], [3.0]]}),
        ({"inputs": {"x": [1.0]}}, {"outputs": [2.5]}),
        ({"inputs": 1.0}, {"outputs": 2.5}),
    ):
        assert post(http, HALF_PLUS_TWO, body).get_json() == answer


def test_predict_several_inputs_and_outputs_are_objects(http: Client) -> None:
    row = {"text": {"b64": "/w=="}, "number": 3}
    body = {"signature_name": "many", "instances": [row, {"text": "é", "number": 4}]}
    first, second = post(http, TF2, body).get_json()["predictions"]
    assert first["raw_bytes"] == {"b64": "/w=="}
    assert second == {"text": "é", "raw_bytes": {"b64": "w6k="}, "double": 8, "odd": False}
    columns = {"signature_name": "many", "inputs": {"text": ["a"], "number": [5]}}
    assert post(http, TF2, columns).get_json()["outputs"]["double"] == [10]
    for plain, error in (
        ({"instances": [1]}, "'instances' must be a list of objects"),
        ({"inputs": [1]}, "'inputs' must be an object"),
    ):
        response = post(http, TF2, {"signature_name": "many", **plain})
        assert response.get_json()["error"].startswith(error)


def test_predict_card_signature_answers_task_card(http: Client) -> None:
    body = {"signature_name": "card", "instances": [0]}
    (card,) = post(http, COLORS_PREDICT, body).get_json()["predictions"]
    assert TaskCard.from_document(json.loads(card)) == COLORS


def test_predict_color_images_answers_same_by_row_and_by_column(http: Client) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, *COLORS.shape)).tolist()
    rows = post(http, COLORS_PREDICT, {"signature_name": "images", "instances": images}).get_json()
    columns = post(http, COLORS_PREDICT, {"signature_name": "images", "inputs": {"images": images}})
    assert np.shape(rows["predictions"]) == (3, len(COLORS.labels))
    assert columns.get_json() == {"outputs": rows["predictions"]}
    images[1][0][0][2] = 2**31
    response = post(http, COLORS_PREDICT, {"signature_name": "images", "instances": images})
    assert response.get_json()["error"] == "entry 1 of 'instances': a number is out of range for uint8"


def test_predict_invalid_base64_answers_400(http: Client) -> None:
    body = {"signature_name": "many", "inputs": {"text": [{"b64": "*"}], "number": [5]}}
    assert post(http, TF2, body).get_json()["error"] == "Unable to base64 decode"


def test_predict_scalar_output_needs_columns(http: Client) -> None:
    error = post(http, TF2, {"signature_name": "total", "instances": [1.0, 2.0]}).get_json()["error"]
    assert error == "the outputs have no common size in dimension 0; send 'inputs'"
    columns = post(http, TF2, {"signature_name": "total", "inputs": [1.0, 2.0]})
    assert columns.get_json() == {"outputs": 3.0}


def test_predict_accepts_and_returns_nan_and_infinity(http: Client) -> None:
    response = post(http, HALF_PLUS_TWO, b'{"instances": [NaN, Infinity, -Infinity]}')
    assert response.text == '{"predictions": [NaN, Infinity, -Infinity]}'


def test_predict_prints_floats_with_the_fewest_digits_that_keep_the_value(http: Client) -> None:
    response = post(http, HALF_PLUS_TWO, {"inputs": [0.2, 1 / 3]})
    assert response.text == '{"outputs": [2.1, 2.1666667]}'
    assert np.float32(2.1666667) == np.float32(1 / 3) / 2 + 2


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/none", 404, "Could not find any versions of model none"),
        ("/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
        (f"{MODEL}/versions/7", 404, "Could not find version 7 of model half_plus_two"),
        (f"{MODEL}/versions/9999999999999999999", 400, "Malformed request: GET"),
        (f"{MODEL}/versions/{'9' * 5000}", 400, "Malformed request: GET"),
        (HALF_PLUS_TWO, 400, f"Malformed request: GET {HALF_PLUS_TWO}"),
        ("/v1/other", 400, "Malformed request: GET /v1/other"),
    ],
)
def test_get_unknown_path_model_or_version_answers_error(
    http: Client, path: str, status: int, error: str
) -> None:
    response = http.get(path)
    assert response.status_code == status
    assert response.get_json()["error"].startswith(error)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
        (f"{MODEL}/versions/7:predict", 404, "Servable not found for request: Specific(half_plus_two, 7)"),
        (f"{MODEL}/labels/new:predict", 400, "Unrecognized servable version label: new"),
        (f"{MODEL}:classify", 501, "This model server implements Predict only."),
        (f"{MODEL}:regress", 501, "This model server implements Predict only."),
        (MODEL, 400, "Malformed request: POST"),
    ],
)
def test_post_unknown_path_model_or_version_answers_error(
    http: Client, path: str, status: int, error: str
) -> None:
    response = post(http, path, {"instances": [1.0]})
    assert response.status_code == status
    assert response.get_json()["error"].startswith(error)


def test_path_selects_newest_version_number_or_label(http: Client) -> None:
    for path, value in (("", 2.0), ("/versions/1", 1.0), ("/labels/stable", 1.0)):
        response = post(http, f"/v1/models/versions{path}:predict", {"instances": [0.0]})
        assert response.get_json() == {"predictions": [value]}
    metadata = http.get("/v1/models/versions/labels/stable/metadata").get_json()
    assert metadata["model_spec"]["version"] == "1"


def test_options_with_cors_answers_200(http: Client) -> None:
    response = http.options(HALF_PLUS_TWO)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"


def test_options_without_cors_answers_400(core: ServerCore) -> None:
    response = Client(RestApi(flags.parse([]), core, "")).options(HALF_PLUS_TWO)
    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers


def test_path_outside_the_api_answers_404(http: Client) -> None:
    assert http.get("/").status_code == 404


def test_predict_after_timeout_answers_504(core: ServerCore) -> None:
    http = Client(RestApi(flags.parse(["--rest_api_timeout_in_ms=1"]), core, ""))
    assert post(http, TF2, {"signature_name": "wait", "inputs": [0.01]}).status_code == 504


def test_drain_waits_for_requests_in_flight_and_refuses_new_ones() -> None:
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
