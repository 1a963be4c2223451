"""HTTP clients against servers with injected faults."""

import asyncio
import json
import os
import pickle
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any

import httpx
import numpy as np
import pytest
from werkzeug.wrappers import Response

from digit_client import AsyncClient, Client, RetryPolicy
from digit_core import errors
from tests.client.faulty_server import FaultyServer, failure, read_success, success
from tests.core.blocking import BlockingAsync

FAST_RETRIES = RetryPolicy(max_attempts=3, initial_backoff=0.001, max_backoff=0.01)


BlockingAsyncClient = partial(BlockingAsync, AsyncClient)
"""AsyncClient with Client's blocking methods."""


def connect(client_type: Any, transport: Any, url: str = "http://gateway.test", **options: Any) -> Any:
    """Return a client whose requests go to the transport."""
    http_class = httpx.Client if client_type is Client else httpx.AsyncClient
    return client_type(url, http_client=http_class(transport=transport), **options)


@pytest.fixture(params=[Client, BlockingAsyncClient], ids=["blocking", "asyncio"])
def client_type(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


@pytest.fixture
def client(client_type: Any, server: FaultyServer) -> Iterator[Any]:
    with client_type(server.url, retries=FAST_RETRIES) as client:
        yield client


def hang() -> Response:
    time.sleep(1)
    return success()


def test_retryable_failure_is_retried_until_success(client: Any, server: FaultyServer) -> None:
    server.responses = [failure(429), failure(503), success]
    assert client.predict(b"image").digit == 0
    server.responses = [failure(502), read_success]
    assert client.read(b"image").text == "12\n3"
    assert server.requests == 5


def test_persistent_failure_is_raised_after_all_attempts(client: Any, server: FaultyServer) -> None:
    server.responses = [failure(503)]
    with pytest.raises(errors.UnavailableError):
        client.predict(b"image")
    assert server.requests == 3
    with pytest.raises(errors.UnavailableError):
        client.with_options(retries=RetryPolicy(max_attempts=1)).predict(b"image")
    assert server.requests == 4


def test_other_status_is_raised_without_retry(client: Any, server: FaultyServer) -> None:
    server.responses = [failure(500)]
    with pytest.raises(errors.ServiceError) as raised:
        client.predict(b"image")
    assert (raised.value.status, server.requests) == (500, 1)


def drip() -> Response:
    """Return a response whose body takes two seconds."""

    def body() -> Iterator[bytes]:
        for _ in range(20):
            time.sleep(0.1)
            yield b" "

    return Response(body())


@pytest.mark.xdist_group("timing")
@pytest.mark.parametrize("responses", [[hang], [failure(503), hang], [drip]], ids=["hang", "retry", "drip"])
def test_deadline_of_the_call_bounds_all_attempts_and_the_body(
    client_type: Any, server: FaultyServer, responses: list[Any]
) -> None:
    server.responses = [*responses]
    late = pytest.raises(errors.DeadlineExceededError, match=r"did not answer within 0\.(3|29\d*) s")
    with client_type(server.url, timeout=0.3, retries=FAST_RETRIES) as client, late:
        client.predict(b"image")


def test_ready_tells_whether_the_service_answers(client: Any, client_type: Any, server: FaultyServer) -> None:
    server.responses = [failure(503), lambda: Response("{}"), failure(500)]
    assert client.ready() is False
    assert client.ready() is True
    with pytest.raises(errors.ServiceError):
        client.ready()
    assert server.requests == 3
    with client_type("http://127.0.0.1:1") as other:
        assert other.ready(timeout=5) is False


def test_client_closed_raises_an_error_of_the_package() -> None:
    client = Client("http://127.0.0.1:1")
    client.close()
    with pytest.raises(errors.ClientClosedError, match="the client is closed; create another one") as raised:
        client.predict(b"image")
    assert raised.value.request_id is None


def test_async_client_in_a_second_event_loop_raises_an_error_of_the_package(server: FaultyServer) -> None:
    server.responses = [success]
    client = AsyncClient(server.url)
    assert asyncio.run(client.predict(b"image")).digit == 0
    with pytest.raises(errors.ClientClosedError, match="another event loop; create a client in each asyncio"):
        asyncio.run(client.predict(b"image"))


def test_predict_many_deadline_bounds_each_request(server: FaultyServer) -> None:
    server.responses = [lambda: time.sleep(0.4) or success()]  # type: ignore[func-returns-value]
    with Client(server.url, timeout=1.5) as client:
        assert len(client.predict_many([b"x" * 4_000_000] * 4, concurrency=1)) == 4


def test_requests_and_retries_are_logged(
    client: Any, server: FaultyServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.responses = [failure(503), success]
    with caplog.at_level("DEBUG", "digit_client"):
        client.predict(b"image", request_id="my-id")
    levels = [record.levelname for record in caplog.records if record.name == "digit_client"]
    assert levels == ["DEBUG", "INFO", "DEBUG"]
    assert "POST /v1/predict: status 503" in caplog.text
    assert "my-id" in caplog.text


def test_api_key_of_argument_or_environment_is_sent_as_bearer_token(
    client_type: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, transport = record_requests()
    for argument, variable in ((None, ""), ("argument", ""), (None, "environment"), ("argument", "other")):
        monkeypatch.setenv("DIGITS_API_KEY", variable)
        with connect(client_type, transport, api_key=argument) as client:
            client.predict(b"image")
    sent = [request.headers.get("authorization") for request in requests]
    assert sent == [None, "Bearer argument", "Bearer environment", "Bearer argument"]


def test_api_key_that_no_header_can_hold_raises_value_error_without_it() -> None:
    for key in ("secret\n", "sécret"):
        with pytest.raises(ValueError, match="API key has") as raised:
            Client(api_key=key)
        assert key not in str(raised.value)


def test_settings_show_no_api_key_and_keep_the_headers_that_were_given(client_type: Any) -> None:
    requests, transport = record_requests()
    headers = {"X-Tenant": "a"}
    with connect(client_type, transport, api_key="secret-1", default_headers=headers) as client:
        headers["X-Tenant"] = "b"
        other = client.with_options(timeout=1)
        other.predict(b"image")
        other.with_options(api_key="secret-2").predict(b"image")
        assert not [each for each in (client, other) if "secret" in repr(vars(each))]
    sent = [(each.headers["authorization"], each.headers["x-tenant"]) for each in requests]
    assert sent == [("Bearer secret-1", "a"), ("Bearer secret-2", "a")]


def test_requests_name_package_python_and_a_request_id(client_type: Any) -> None:
    requests, transport = record_requests()
    with connect(client_type, transport, default_headers={"X-Tenant": "a"}) as client:
        prediction = client.predict(b"image", request_id="my-id")
        client.predict(b"image")
        client.with_options(default_headers={"X-Tenant": "b"}).predict_many([b"image"])
    agents = {request.headers["user-agent"] for request in requests}
    assert agents == {f"digits/{version('digits')} python/{platform.python_version()}"}
    assert [request.headers["x-tenant"] for request in requests] == ["a", "a", "b"]
    sent = [request.headers["x-request-id"] for request in requests]
    assert sent[0] == prediction.request_id == "my-id"
    assert len(set(sent)) == 3


def test_feedback_on_answers_that_keep_their_pictures(client_type: Any) -> None:
    """Two files of 3 MB fit into a request, so that a position in the call is none in its request."""
    requests, transport = record_requests()
    with connect(client_type, transport, keep_response=True, model="digits") as client:
        keeping = client.with_options(keep_picture=True)
        predictions = keeping.predict_many([bytes([number]) * 3_000_000 for number in range(5)])
        kept = [keeping.feedback(prediction, 7) for prediction in [*predictions, keeping.predict(b"one")]]
        by_id = client.feedback(client.predict(b"one", request_id="mine"), timeout=5)
        (array,) = keeping.predict_many(np.zeros((1, 28, 28), np.uint8))
    assert [prediction.picture[:1] for prediction in predictions] == [bytes([number]) for number in range(5)]
    assert {each.pictures for each in kept} == {1}
    sent = [request.content for request in requests if request.url.path == "/v1/feedback"]
    assert [number for number in range(5) if bytes([number]) * 3_000_000 in sent[number]] == [*range(5)]
    assert b"one" in sent[5]
    assert json.loads(sent[6]) == {"request_id": "mine", "index": 0, "label": "0"}
    assert by_id.response
    assert array.picture.startswith(b"\x89PNG")
    assert requests[-2].url.params["model"] == "digits"


def test_failed_connection_is_retried_and_has_request_id(client_type: Any) -> None:
    requests: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        raise httpx.ConnectError("refused", request=request)

    with connect(client_type, httpx.MockTransport(refuse), retries=FAST_RETRIES) as client:
        with pytest.raises(errors.ConnectionFailedError) as raised:
            client.predict(b"image", request_id="my-id")
        (failed,) = client.predict_many([b"image"], request_id="my-id")
        assert type(failed) is errors.ConnectionFailedError
        assert failed.request_id == raised.value.request_id == "my-id"
    assert len(requests) == 6


def test_invalid_default_header_raises_value_error(client: Any, server: FaultyServer) -> None:
    server.responses = [success]
    with pytest.raises(ValueError, match="header"):
        client.with_options(default_headers={"X-Tenant": "a\nb"}).predict(b"image")


def test_keep_response_adds_response_to_results_and_errors(client_type: Any) -> None:
    requests, transport = record_requests()
    with connect(client_type, transport, keep_response=True) as client:
        prediction = client.predict(b"image")
        assert prediction.response.status_code == 200
        assert prediction.response.json()["predictions"][0]["digit"] == 0
        assert prediction.response.headers["x-request-id"] == requests[0].headers["x-request-id"]
        assert client.with_options(keep_response=False).predict(b"image").response is None
    failing = httpx.MockTransport(lambda _: httpx.Response(500))
    with (
        connect(client_type, failing, keep_response=True) as client,
        pytest.raises(errors.ServiceError) as raised,
    ):
        client.predict(b"image")
    assert raised.value.response is not None
    assert raised.value.response.status_code == 500


def test_http_client_of_the_caller_is_neither_pickled_nor_closed_nor_used_after_a_fork() -> None:
    _, transport = record_requests()
    with httpx.Client(transport=transport) as http_client:
        client = Client("http://gateway.test", http_client=http_client)
        with pytest.raises(TypeError, match="http_client"):
            pickle.dumps(client)
        client.close()
        assert not http_client.is_closed
        child = os.fork()
        if child == 0:
            with suppress(RuntimeError):
                client.predict(b"image")
                os._exit(1)
            os._exit(7)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
    with pytest.raises(errors.ClientClosedError, match="the http_client is closed"):
        client.predict(b"image")


def record_requests() -> tuple[list[httpx.Request], httpx.MockTransport]:
    """Return a list of requests, and a transport that adds to it and answers each as a gateway does."""
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        request_id = request.headers["x-request-id"]
        document: dict[str, Any]
        if request.url.path == "/v1/feedback":
            document = {"feedback": {"request_id": request_id, "index": 0, "pictures": 1}}
        else:
            document = json.loads(success().data)
            document["predictions"] *= max(1, request.content.count(b"Content-Disposition"))
        document["request_id"] = request_id
        return httpx.Response(200, json=document, headers={"X-Request-ID": request_id})

    return requests, httpx.MockTransport(respond)


@pytest.mark.parametrize("model", ["flowers", None])
def test_model_and_options_are_query_parameters(client_type: Any, model: str | None) -> None:
    queries: list[dict[str, str]] = []

    def respond(request: httpx.Request) -> httpx.Response:
        queries.append(dict(request.url.params))
        return httpx.Response(500)

    options = {"label": "stable", "min_is_digit": 0.2, "include": "image"}
    with connect(client_type, httpx.MockTransport(respond), model=model) as client:
        for call in (
            client.models,
            partial(client.feedback, b"", 7),
            partial(client.predict, b"", version=3),
            partial(client.read, b"", **options),
        ):
            with pytest.raises(errors.ServiceError):
                call()
        (failed,) = client.predict_many([b""], **options)
        assert isinstance(failed, errors.ServiceError)
    selected = {} if model is None else {"model": model}
    sent = selected | {"label": "stable", "min_is_digit": "0.2", "include": "image"}
    assert queries == [selected, selected, selected | {"version": "3"}, sent, sent]
