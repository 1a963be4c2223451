"""The REST API: paths, statuses and headers; tests of its JSON are in test_json_format."""

import threading
from typing import Any

import httpx
import pytest
from werkzeug.test import Client

from digit_serving.model_server.rest import DrainMiddleware

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
