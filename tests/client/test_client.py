"""HTTP clients: against a gateway, and against a server with injected faults."""

import asyncio
import inspect
import io
import json
import os
import pickle
import platform
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from digit_client import (
    DIGITS,
    AsyncClassifierClient,
    AsyncDigitClient,
    ClassifierClient,
    ConnectionFailedError,
    DeadlineExceededError,
    DigitClient,
    ImageShapeError,
    ModelNotFoundError,
    ModelVersion,
    NoDigitError,
    NotAnImageError,
    Prediction,
    Reading,
    ReadingNotSupportedError,
    RetryPolicy,
    ServiceError,
    SeveralDigitsError,
    TaskCard,
    UnavailableError,
)
from digit_client.images import decode, to_png
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.client.drawn_numbers import draw_lines
from tests.client.faulty_server import FaultyServer, failure, read_success, success
from tests.client.linear_model_server import LinearModelServer

FAST_RETRIES = RetryPolicy(max_attempts=3, initial_backoff=0.001, max_backoff=0.01)


class BlockingAsyncClient:
    """AsyncDigitClient with DigitClient's blocking methods, so that a test covers both clients."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncDigitClient(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        method: Any = getattr(self._client, name)
        if not callable(method):
            return method
        return lambda *arguments, **options: self._wait(method(*arguments, **options))

    def with_options(self, **options: Any) -> "BlockingAsyncClient":
        client = object.__new__(BlockingAsyncClient)
        client._runner, client._client = self._runner, self._client.with_options(**options)
        return client

    def _wait(self, result: Any) -> Any:
        if inspect.iscoroutine(result):
            return self._runner.run(result)
        return self._iterate(result) if isinstance(result, AsyncIterator) else result

    def _iterate(self, results: AsyncIterator[Any]) -> Iterator[Any]:
        with suppress(StopAsyncIteration):
            while True:
                yield self._runner.run(anext(results))  # type: ignore[arg-type]

    def __enter__(self) -> "BlockingAsyncClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


def connect(client_type: Any, transport: Any, url: str = "http://gateway.test", **options: Any) -> Any:
    """Return a client whose requests go to the transport."""
    http_class = httpx.Client if issubclass(client_type, ClassifierClient) else httpx.AsyncClient
    return client_type(url, http_client=http_class(transport=transport), **options)


@pytest.fixture(params=[DigitClient, BlockingAsyncClient])
def client_type(request: pytest.FixtureRequest) -> Any:
    return request.param


class GatewayTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """httpx transport that passes requests to the gateway's Flask application, without a socket."""

    def __init__(self, flask_client: FlaskClient) -> None:
        self._flask_client = flask_client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._flask_client.open(
            request.url.raw_path.decode(),
            method=request.method,
            headers=request.headers.multi_items(),
            data=request.read(),
        )
        return httpx.Response(
            response.status_code, headers=list(response.headers.items()), content=response.data
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return await asyncio.to_thread(self.handle_request, request)


@pytest.fixture(scope="module", params=["in_process", pytest.param("processes", marks=pytest.mark.e2e)])
def create_client(request: pytest.FixtureRequest, digits: Any) -> Iterator[Callable[..., Any]]:
    """Function that creates a client of the type that it gets for a gateway.

    The gateway is in this process with a linear model, or it and the model server are processes.
    """
    if request.param == "processes":
        url = request.getfixturevalue("gateway")
        yield lambda client_type: client_type(url)
        return
    images, labels = digits.images[:1000], digits.labels[:1000]
    with LinearModelServer(images, labels, with_is_digit=True) as model_server:
        flask_client = greenlet_loop.client(Settings(model_server=model_server.target, default_label=""))
        transport = GatewayTransport(flask_client)
        yield lambda client_type: connect(client_type, transport)


class TestGateway:
    @pytest.fixture
    def client(self, client_type: Any, create_client: Callable[..., Any]) -> Iterator[Any]:
        with create_client(client_type) as client:
            yield client

    @pytest.fixture
    def number(self, digits: Any) -> Any:
        """Picture with two lines: 17 and 4."""
        return draw_lines([digits.one(1), digits.one(7)], [digits.one(4)])

    def test_predict_array_returns_prediction(self, client: Any, digits: Any) -> None:
        prediction = client.predict(digits.one(7))
        assert isinstance(prediction, Prediction)
        assert prediction.digit == 7
        assert prediction.model_version == 1
        assert prediction.is_accepted

    def test_predict_every_source_returns_same_prediction(
        self, client: Any, digits: Any, tmp_path: Path
    ) -> None:
        image = digits.one(3)
        path = tmp_path / "three.png"
        path.write_bytes(to_png(image))
        with path.open("rb") as file:
            sources = [image, path, str(path), path.read_bytes(), file]
            assert len({client.predict(source) for source in sources}) == 1

    def test_predict_many_array_and_list_return_same_predictions(self, client: Any, digits: Any) -> None:
        images = digits.images[:300]
        from_array = [prediction.digit for prediction in client.predict_many(images)]
        assert from_array == [prediction.digit for prediction in client.predict_many(list(images))]
        assert np.mean(from_array == digits.labels[:300]) > 0.85

    def test_predict_many_and_read_many_array_of_other_size_is_prepared(
        self, client: Any, digits: Any
    ) -> None:
        large = np.kron(digits.typical(3, 2), np.ones((1, 2, 2), np.uint8))
        assert [prediction.digit for prediction in client.predict_many(large)] == [3, 3]
        assert [reading.text for reading in client.read_many(large)] == ["3", "3"]

    def test_predict_many_empty_list_returns_empty_list(self, client: Any) -> None:
        assert client.predict_many([]) == []

    def test_predict_version_or_label_selects_model(self, client: Any, digits: Any) -> None:
        assert client.predict(digits.one(1), version=1).model_version == 1
        with pytest.raises(ModelNotFoundError):
            client.predict(digits.one(1), version=99)
        with pytest.raises(ModelNotFoundError):
            client.predict(digits.one(1), label="nonsense")
        with pytest.raises(ValueError, match="not both"):
            client.predict(digits.one(1), version=1, label="stable")

    def test_predict_many_blank_image_raises_no_digit_with_index(self, client: Any, digits: Any) -> None:
        images: list[Any] = [digits.one(1), np.zeros((28, 28), np.uint8)]
        with pytest.raises(NoDigitError) as raised:
            client.predict_many(images)
        assert raised.value.index == 1

    def test_predict_several_digits_raises_several_digits_with_count(self, client: Any, number: Any) -> None:
        with pytest.raises(SeveralDigitsError) as raised:
            client.predict(number)
        assert raised.value.count == 3

    def test_read_returns_lines_with_boxes(self, client: Any, number: Any) -> None:
        reading = client.read(number, version=1)
        assert isinstance(reading, Reading)
        assert reading.text == "17\n4"
        assert [digit.digit for line in reading.lines for digit in line.digits] == [1, 7, 4]
        assert reading.model_version == 1
        height, width = number.shape
        for digit in reading.digits:
            assert digit.confidence <= max(digit.probabilities) == digit.probabilities[digit.digit]
            left, top, box_width, box_height = digit.box
            assert 0 <= left < left + box_width <= width
            assert 0 <= top < top + box_height <= height

    def test_read_every_source_returns_same_reading(self, client: Any, number: Any, tmp_path: Path) -> None:
        path = tmp_path / "number.png"
        path.write_bytes(to_png(number))
        assert len({client.read(source) for source in (number, path, path.read_bytes())}) == 1

    def test_read_many_returns_readings_in_order(self, client: Any, digits: Any, number: Any) -> None:
        readings = client.read_many([digits.one(3), number])
        assert [reading.text for reading in readings] == ["3", "17\n4"]
        assert client.read_many([]) == []

    def test_read_unknown_version_raises_model_not_found(self, client: Any, number: Any) -> None:
        with pytest.raises(ModelNotFoundError):
            client.read(number, version=99)
        with pytest.raises(ValueError, match="not both"):
            client.read(number, version=1, label="stable")

    def test_read_many_blank_image_raises_no_digit_with_index(self, client: Any, digits: Any) -> None:
        with pytest.raises(NoDigitError) as raised:
            client.read_many([digits.one(1), np.zeros((28, 28), np.uint8)])
        assert raised.value.index == 1

    def test_models_lists_versions(self, client: Any) -> None:
        models = client.models()
        assert (models.name, models.versions) == ("digits", (ModelVersion(1, "AVAILABLE"),))
        assert models.task == DIGITS
        assert models.request_id

    def test_predict_many_on_error_return_puts_errors_in_place(
        self, client: Any, digits: Any, tmp_path: Path
    ) -> None:
        images = [*digits.typical(3, 3), b"no image", np.zeros((28, 28), np.uint8), tmp_path / "missing.png"]
        outcomes = client.predict_many(images, on_error="return")
        assert [outcome.digit for outcome in outcomes[:3]] == [3, 3, 3]
        assert [type(outcome) for outcome in outcomes[3:]] == [
            NotAnImageError,
            NoDigitError,
            FileNotFoundError,
        ]
        assert [outcome.index for outcome in outcomes[3:5]] == [3, 4]
        readings = client.read_many(images, on_error="return")
        assert [reading.text for reading in readings[:3]] == ["3", "3", "3"]
        assert [type(reading) for reading in readings[3:]] == [
            NotAnImageError,
            NoDigitError,
            FileNotFoundError,
        ]

    def test_iter_predict_and_iter_read_yield_every_position_once(self, client: Any, digits: Any) -> None:
        images = [to_png(image) for image in digits.images[:150]]
        images[70] = b"no image"
        outcomes = dict(client.iter_predict(images, concurrency=3))
        assert sorted(outcomes) == list(range(150))
        assert isinstance(outcomes[70], NotAnImageError)
        assert outcomes[149].digit == client.predict(images[149]).digit
        assert sorted(dict(client.iter_read(images[:3]))) == [0, 1, 2]

    def test_predict_and_read_include_image_give_models_input(
        self, client: Any, digits: Any, number: Any
    ) -> None:
        image = digits.one(7)
        prediction = client.predict(image, include="image")
        assert np.array_equal(decode(prediction.image), image)
        assert client.predict(image).image is None
        (with_image,) = client.predict_many([image], include="image")
        assert with_image.image == prediction.image
        shapes = {decode(digit.image).shape for digit in client.read(number, include="image").digits}
        assert shapes == {(28, 28)}


COLORS = TaskCard("colors", ("red", "green", "blue"), (6, 8, 3), (-1.0, 1.0))


@pytest.fixture(scope="module")
def colors_transport() -> Iterator[GatewayTransport]:
    """Transport to a gateway whose model classifies colors."""
    images = np.zeros((3, *COLORS.shape), np.uint8)
    for color in range(3):
        images[color, :, :, color] = 255
    with LinearModelServer(images, np.arange(3, dtype=np.uint8), task=COLORS) as model_server:
        settings = Settings(model_server=model_server.target, model_name="colors", default_label="")
        yield GatewayTransport(greenlet_loop.client(settings))


class TestOtherTask:
    @pytest.fixture
    def client(self, client_type: Any, colors_transport: GatewayTransport) -> Iterator[Any]:
        with connect(client_type, colors_transport) as client:
            yield client

    @pytest.fixture
    def picture(self) -> Any:
        """Green picture of another size and aspect ratio than the model's."""
        return np.full((30, 20, 3), (0, 200, 0), np.uint8)

    def test_predict_returns_label_of_task(self, client: Any, picture: Any) -> None:
        prediction = client.predict(picture)
        assert (prediction.label, prediction.index, prediction.labels) == ("green", 1, COLORS.labels)
        assert (prediction.confidence, prediction.is_digit) == (max(prediction.probabilities), None)
        assert not hasattr(prediction, "digit")

    def test_predict_many_array_and_list_return_same_predictions(self, client: Any) -> None:
        images = np.random.default_rng(0).integers(0, 256, (5, *COLORS.shape), np.uint8)
        assert client.predict_many(images) == client.predict_many(list(images))

    def test_read_raises_reading_not_supported(self, client: Any, picture: Any) -> None:
        with pytest.raises(ReadingNotSupportedError) as raised:
            client.read(picture)
        assert (raised.value.status, raised.value.reason) == (404, "reading_not_supported")

    def test_models_has_task_card(self, client: Any) -> None:
        assert client.models().task == COLORS

    def test_unknown_model_raises_model_not_found(
        self, client_type: Any, colors_transport: GatewayTransport, picture: Any
    ) -> None:
        with connect(client_type, colors_transport, model="colors") as client:
            assert client.predict(picture).label == "green"
        with connect(client_type, colors_transport, model="nonsense") as client:
            for call in (client.models, lambda: client.predict(picture), lambda: client.read(picture)):
                with pytest.raises(ModelNotFoundError):
                    call()


class TestFaults:
    @pytest.fixture
    def server(self) -> Iterator[FaultyServer]:
        with FaultyServer() as server:
            yield server

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_predict_retryable_status_is_retried_until_success(
        self, client_type: Any, server: FaultyServer, status: int
    ) -> None:
        server.responses = [failure(status), failure(status), success]
        with client_type(server.url, retries=FAST_RETRIES) as client:
            assert client.predict(b"image").digit == 0
        assert server.requests == 3

    def test_read_failure_is_retried_until_success(self, client_type: Any, server: FaultyServer) -> None:
        server.responses = [failure(503), read_success]
        with client_type(server.url, retries=FAST_RETRIES) as client:
            assert client.read(b"image").text == "12\n3"
        assert server.requests == 2

    def test_predict_persistent_failure_is_raised_after_all_attempts(
        self, client_type: Any, server: FaultyServer
    ) -> None:
        server.responses = [failure(503)]
        with client_type(server.url, retries=FAST_RETRIES) as client, pytest.raises(UnavailableError):
            client.predict(b"image")
        assert server.requests == 3

    @pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 500, 501])
    def test_predict_other_status_is_raised_without_retry(
        self, client_type: Any, server: FaultyServer, status: int
    ) -> None:
        server.responses = [failure(status)]
        with client_type(server.url, retries=FAST_RETRIES) as client, pytest.raises(ServiceError) as raised:
            client.predict(b"image")
        assert raised.value.status == status
        assert server.requests == 1

    def test_predict_retry_after_delays_retry(self, client_type: Any, server: FaultyServer) -> None:
        server.responses = [failure(503, **{"Retry-After": "0.3"}), success]
        started = time.monotonic()
        with client_type(server.url, retries=FAST_RETRIES) as client:
            client.predict(b"image")
        assert time.monotonic() - started >= 0.3

    @pytest.mark.xdist_group("timing")
    def test_predict_hung_server_raises_deadline_exceeded(
        self, client_type: Any, server: FaultyServer
    ) -> None:
        server.responses = [lambda: time.sleep(1) or success()]  # type: ignore[func-returns-value]
        started = time.monotonic()
        with client_type(server.url, timeout=0.3) as client, pytest.raises(DeadlineExceededError):
            client.predict(b"image")
        assert time.monotonic() - started < 0.8

    @pytest.mark.xdist_group("timing")
    def test_predict_slow_response_body_raises_deadline_exceeded(
        self, client_type: Any, server: FaultyServer
    ) -> None:
        def drip() -> Iterator[bytes]:
            for _ in range(20):
                time.sleep(0.1)
                yield b" "

        server.responses = [lambda: Response(drip())]
        started = time.monotonic()
        with client_type(server.url, timeout=0.4) as client, pytest.raises(DeadlineExceededError):
            client.predict(b"image")
        assert time.monotonic() - started < 1.0

    def test_predict_refused_connection_raises_connection_failed(self, client_type: Any) -> None:
        with (
            client_type("http://127.0.0.1:1", retries=FAST_RETRIES) as client,
            pytest.raises(ConnectionFailedError),
        ):
            client.predict(b"image")

    @pytest.mark.parametrize("failing", [1, 2])
    def test_predict_many_failed_request_is_outcome_of_its_images(
        self, client_type: Any, server: FaultyServer, failing: int
    ) -> None:
        server.responses = [failure(500)] * failing + [success]
        with client_type(server.url, retries=FAST_RETRIES) as client:
            # One request each: two images exceed the limit of a request.
            images = [b"x" * 4_000_000] * 2
            outcomes = client.predict_many(images, on_error="return", concurrency=1)
        expected = [ServiceError] * failing + [Prediction] * (2 - failing)
        assert [type(outcome) for outcome in outcomes] == expected
        assert server.requests == 2

    def test_predict_many_deadline_bounds_each_request(self, client_type: Any, server: FaultyServer) -> None:
        server.responses = [lambda: time.sleep(0.4) or success()]  # type: ignore[func-returns-value]
        with client_type(server.url, timeout=1.5) as client:
            assert len(client.predict_many([b"x" * 4_000_000] * 4, concurrency=1)) == 4

    def test_predict_timeout_of_call_and_of_options_replace_the_clients(
        self, client_type: Any, server: FaultyServer
    ) -> None:
        server.responses = [lambda: time.sleep(0.3) or success()]  # type: ignore[func-returns-value]
        with client_type(server.url) as client:
            with pytest.raises(DeadlineExceededError, match=r"within 0\.1 s"):
                client.predict(b"image", timeout=0.1)
            with pytest.raises(DeadlineExceededError, match=r"within 0\.1 s"):
                client.with_options(timeout=0.1).predict(b"image")
            assert client.predict(b"image").digit == 0

    def test_predict_many_few_faulty_images_cost_few_requests(self, client_type: Any) -> None:
        requests: list[httpx.Request] = []

        def respond(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            parts = request.content.split(b"image/png")[1:]
            faulty = [index for index, part in enumerate(parts) if b"faulty" in part]
            if faulty:
                return httpx.Response(400, json={"code": "not_an_image", "detail": "no", "index": faulty[0]})
            answer = json.loads(success().data)
            return httpx.Response(200, json=answer | {"predictions": answer["predictions"] * len(parts)})

        images = [b"\x89PNG good"] * 64
        images[5] = images[40] = b"\x89PNG faulty"
        with connect(client_type, httpx.MockTransport(respond)) as client:
            outcomes = client.predict_many(images, on_error="return")
        errors = {index for index, outcome in enumerate(outcomes) if isinstance(outcome, NotAnImageError)}
        assert errors == {5, 40}
        assert all(outcomes[index].index == index for index in errors)
        assert len(requests) <= 5

    def test_predict_many_outcomes_hold_no_images(self, client_type: Any, server: FaultyServer) -> None:
        server.responses = [failure(500)]
        with client_type(server.url, retries=FAST_RETRIES) as client:
            (outcome,) = client.predict_many([b"image"], on_error="return")
        assert outcome.__traceback__ is None

    def test_error_at_the_deadline_is_raised_itself(self, client_type: Any, server: FaultyServer) -> None:
        server.responses = [lambda: time.sleep(0.5) or success()]  # type: ignore[func-returns-value]
        with (
            client_type(server.url, timeout=0.2) as client,
            pytest.raises(DeadlineExceededError, match="from http://127"),
        ):
            client.predict(b"image")

    def test_with_options_retries_replaces_the_clients(self, client_type: Any, server: FaultyServer) -> None:
        server.responses = [failure(503)]
        with client_type(server.url, retries=FAST_RETRIES) as client:
            with pytest.raises(UnavailableError):
                client.with_options(retries=RetryPolicy(max_attempts=1)).predict(b"image")
            assert server.requests == 1

    def test_predict_logs_requests_and_retries(
        self, client_type: Any, server: FaultyServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.responses = [failure(503), success]
        with (
            caplog.at_level("DEBUG", "digit_client"),
            client_type(server.url, retries=FAST_RETRIES) as client,
        ):
            client.predict(b"image", request_id="my-id")
        levels = [record.levelname for record in caplog.records if record.name == "digit_client"]
        assert levels == ["DEBUG", "INFO", "DEBUG"]
        assert "POST /v1/predict: status 503" in caplog.text
        assert "my-id" in caplog.text


@pytest.mark.parametrize("url", ["nonsense", "localhost:8080", "ftp://127.0.0.1", "http://", "http://x:y"])
def test_client_url_without_scheme_or_host_raises_value_error(client_type: Any, url: str) -> None:
    with pytest.raises(ValueError, match="gateway's URL"):
        client_type(url)


@pytest.mark.parametrize(
    "client_class", [ClassifierClient, DigitClient, AsyncClassifierClient, AsyncDigitClient]
)
def test_client_without_arguments_takes_environment(
    client_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_URL", "http://example.test:1234/")
    monkeypatch.setenv("DIGITS_TIMEOUT", "2.5")
    client = client_class()
    assert (client.url, client.timeout) == ("http://example.test:1234", 2.5)
    client = client_class("http://other.test", timeout=1)
    assert (client.url, client.timeout) == ("http://other.test", 1)


@pytest.mark.parametrize("key", ["argument", "environment", None])
def test_api_key_is_sent_as_bearer_token(
    client_type: Any, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIGITS_API_KEY", raising=False)
    if key == "environment":
        monkeypatch.setenv("DIGITS_API_KEY", key)

    requests, transport = record_requests()
    with connect(client_type, transport, api_key=key if key == "argument" else None) as client:
        client.predict(b"image")
        assert key is None or key not in repr(client)
    assert requests[0].headers.get("authorization") == (f"Bearer {key}" if key else None)


@pytest.mark.parametrize("key", ["secret\n", "sécret"])
def test_api_key_that_no_header_can_hold_raises_value_error_without_it(client_type: Any, key: str) -> None:
    with pytest.raises(ValueError, match="API key has") as raised:
        client_type(api_key=key)
    assert key not in str(raised.value)


def test_requests_name_package_and_python(client_type: Any) -> None:
    requests, transport = record_requests()
    with connect(client_type, transport, default_headers={"X-Tenant": "a"}) as client:
        client.predict(b"image")
        client.with_options(default_headers={"X-Tenant": "b"}).predict_many([b"image"])
    agents = {request.headers["user-agent"] for request in requests}
    assert agents == {f"digit-serving/{version('digit-serving')} python/{platform.python_version()}"}
    assert [request.headers["x-tenant"] for request in requests] == ["a", "b"]


def test_request_id_is_sent_and_returned(client_type: Any) -> None:
    requests, transport = record_requests()
    with connect(client_type, transport) as client:
        prediction = client.predict(b"image", request_id="my-id")
        client.predict(b"image")
        client.predict(b"image")
    sent = [request.headers["x-request-id"] for request in requests]
    assert sent[0] == prediction.request_id == "my-id"
    assert len(set(sent)) == 3


def test_feedback_on_result_of_many_names_its_request_and_position(client_type: Any) -> None:
    """Two files of 3 MB fit into a request, so that a position in the call is none in its request."""
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        request_id = request.headers["x-request-id"]
        if request.url.path == "/v1/feedback":
            answered = json.loads(request.content)
            document = {"feedback": {"inputs": 1, "original": False} | answered}
        else:
            count = request.content.count(b"Content-Disposition")
            document = json.loads(success().data)
            document["predictions"] *= count
        return httpx.Response(200, json=document | {"request_id": request_id})

    images = [bytes(3_000_000)] * 5
    with connect(client_type, httpx.MockTransport(respond), keep_response=True) as client:
        predictions = client.predict_many(images)
        kept = [client.feedback(prediction, 7) for prediction in predictions]
        by_id = client.feedback(predictions[3].request_id, index=1, timeout=5, request_id="mine")
    assert [(each.request_id, each.index) for each in kept] == [
        (prediction.request_id, prediction.request_index) for prediction in predictions
    ]
    assert len({(each.request_id, each.index) for each in kept}) == 5
    assert len({each.request_id for each in kept}) == 3
    documents = [json.loads(request.content) for request in requests if request.url.path == "/v1/feedback"]
    assert [document["label"] for document in documents[:-1]] == ["7"] * 5
    assert documents[-1] == {"request_id": predictions[3].request_id, "index": 1, "is": "right"}
    assert requests[-1].headers["x-request-id"] == "mine"
    assert by_id.response.status_code == 200


def test_feedback_refused_raises_error_with_reason(client_type: Any) -> None:
    statuses = {"feedback_unknown": 404, "feedback_mismatch": 422}

    def refuse(request: httpx.Request) -> httpx.Response:
        code = json.loads(request.content)["request_id"]
        return httpx.Response(statuses[code], json={"code": code, "detail": "A sentence."})

    with connect(client_type, httpx.MockTransport(refuse)) as client:
        for code, status in statuses.items():
            with pytest.raises(ServiceError, match="A sentence") as raised:
                client.feedback(code)
            assert (raised.value.reason, raised.value.status) == (code, status)


def test_feedback_while_store_is_away_is_retried(client_type: Any) -> None:
    kept = {"feedback": {"request_id": "r", "index": 0, "inputs": 1, "original": False}}
    responses = [httpx.Response(503, json={"code": "feedback_unavailable"}), httpx.Response(200, json=kept)]
    transport = httpx.MockTransport(lambda _: responses.pop(0))
    with connect(client_type, transport, retries=FAST_RETRIES) as client:
        assert client.feedback("r", 7).inputs == 1


def test_error_without_response_has_request_id(client_type: Any) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with connect(client_type, httpx.MockTransport(refuse), retries=FAST_RETRIES) as client:
        with pytest.raises(ConnectionFailedError) as raised:
            client.predict(b"image", request_id="my-id")
        assert raised.value.request_id == "my-id"
        with pytest.raises(ConnectionFailedError) as raised:
            client.predict_many([b"image"])
        assert raised.value.request_id


def test_request_id_that_the_gateway_replaces_raises_value_error(client_type: Any) -> None:
    with client_type() as client, pytest.raises(ValueError, match="a request ID has"):
        client.predict(b"image", request_id="order 17")


def test_invalid_default_header_raises_value_error(client_type: Any) -> None:
    with FaultyServer() as server, client_type(server.url, default_headers={"X-Tenant": "a\nb"}) as client:
        server.responses = [success]
        with pytest.raises(ValueError, match="header"):
            client.predict(b"image")


def test_keep_response_adds_response_to_results_and_errors(client_type: Any) -> None:
    requests, transport = record_requests()
    with connect(client_type, transport, keep_response=True) as client:
        prediction = client.predict(b"image")
        assert prediction.response.status_code == 200
        assert prediction.response.json()["predictions"][0]["digit"] == 0
        assert prediction.response.headers["x-request-id"] == requests[0].headers["x-request-id"]
        assert client.with_options(keep_response=False).predict(b"image").response is None
    failing = httpx.MockTransport(lambda _: httpx.Response(500))
    with connect(client_type, failing, keep_response=True) as client, pytest.raises(ServiceError) as raised:
        client.predict(b"image")
    assert raised.value.response is not None
    assert raised.value.response.status_code == 500


def test_redirect_and_page_raise_one_clear_error_without_retry(client_type: Any) -> None:
    requests: list[httpx.Request] = []
    responses = [
        httpx.Response(302, headers={"Location": "https://login.test/"}),
        httpx.Response(200, html="<html>"),
    ]

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return responses[len(requests) - 1]

    with connect(client_type, httpx.MockTransport(respond), retries=FAST_RETRIES) as client:
        with pytest.raises(ServiceError, match=r"redirects to https://login\.test/"):
            client.predict(b"image")
        with pytest.raises(ServiceError, match="text/html instead of JSON"):
            client.models()
    assert len(requests) == 2


@pytest.mark.parametrize(
    "images", ["five.jpg", b"image", Path("five.jpg"), bytearray(b"image"), io.BytesIO(b"image")], ids=type
)
def test_methods_for_many_images_refuse_a_single_one(client_type: Any, images: Any) -> None:
    with client_type() as client:
        for method in (client.predict_many, client.read_many, client.iter_predict, client.iter_read):
            with pytest.raises(TypeError, match="put it in a list"):
                method(images)


def test_methods_unknown_on_error_raises_value_error(client_type: Any) -> None:
    with client_type() as client:
        for method in (client.predict_many, client.read_many):
            with pytest.raises(ValueError, match="'skip'"):
                method([b"image"], on_error="skip")


def test_methods_unknown_option_raises_type_error(client_type: Any) -> None:
    with client_type() as client:
        for method, image in (
            (client.predict, b"image"),
            (client.predict_many, [b"image"]),
            (client.iter_predict, [b"image"]),
        ):
            with pytest.raises(TypeError, match="versoin"):
                method(image, versoin=1)


@pytest.mark.parametrize(
    "client_class", [ClassifierClient, DigitClient, AsyncClassifierClient, AsyncDigitClient]
)
def test_client_is_picklable_with_its_settings(client_class: Any) -> None:
    client = client_class(
        "http://user:secret@gateway.test",
        model="flowers",
        api_key="secret",
        timeout=3,
        retries=FAST_RETRIES,
        default_headers={"X-Tenant": "a"},
    )
    restored = pickle.loads(pickle.dumps(client))
    assert type(restored) is client_class
    expected = f"{client_class.__name__}('http://gateway.test', model='flowers', timeout=3)"
    assert repr(client) == repr(restored) == expected
    assert pickle.dumps(restored) == pickle.dumps(client)


def test_client_with_http_client_is_not_picklable() -> None:
    _, transport = record_requests()
    http_client = httpx.Client(transport=transport)
    with http_client, pytest.raises(TypeError, match="http_client"):
        pickle.dumps(DigitClient("http://gateway.test", http_client=http_client))


class KeepingHandler(BaseHTTPRequestHandler):
    """Handler that keeps connections open, and answers each request with its own port as confidence."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        document = json.loads(success().data)
        document["predictions"][0]["confidence"] = self.client_address[1]
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_client_used_after_a_fork_connects_anew() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), KeepingHandler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        with DigitClient(f"http://127.0.0.1:{server.server_port}") as client:
            port = client.predict(b"image").confidence
            assert client.predict(b"image").confidence == port
            child = os.fork()
            if child == 0:
                os._exit(client.predict(b"image").confidence == port)
            _, status = os.waitpid(child, 0)
            assert client.predict(b"image").confidence == port
        server.shutdown()
    assert os.waitstatus_to_exitcode(status) == 0


def test_close_leaves_http_client_of_the_caller_open() -> None:
    _, transport = record_requests()
    with httpx.Client(transport=transport) as http_client:
        DigitClient("http://gateway.test", http_client=http_client).close()
        assert not http_client.is_closed


def record_requests() -> tuple[list[httpx.Request], httpx.MockTransport]:
    """Return a list of requests, and a transport that adds to it and answers each as a gateway does."""
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        request_id = request.headers["x-request-id"]
        document = json.loads(success().data) | {"request_id": request_id}
        return httpx.Response(200, json=document, headers={"X-Request-ID": request_id})

    return requests, httpx.MockTransport(respond)


@pytest.mark.parametrize("model", ["flowers", None])
def test_model_is_in_every_query(client_type: Any, model: str | None) -> None:
    queries: list[dict[str, str]] = []

    def respond(request: httpx.Request) -> httpx.Response:
        queries.append(dict(request.url.params))
        return httpx.Response(500)

    selected = {} if model is None else {"model": model}
    with connect(client_type, httpx.MockTransport(respond), model=model) as client:
        for method, arguments in (
            ("predict", [b""]),
            ("predict_many", [[b""]]),
            ("read", [b""]),
            ("models", []),
            ("feedback", ["r"]),
        ):
            with pytest.raises(ServiceError):
                getattr(client, method)(*arguments)
        with pytest.raises(ServiceError):
            client.predict(b"", version=3)
    assert queries == [selected] * 5 + [selected | {"version": "3"}]


def test_predict_many_array_of_wrong_shape_is_sent_as_pictures(client_type: Any) -> None:
    media_types: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        media_types.append(request.headers["content-type"].partition(";")[0])
        return httpx.Response(422, json={"code": "wrong_shape", "detail": "Another shape.", "index": 1})

    with connect(client_type, httpx.MockTransport(refuse)) as client:
        for images in (np.zeros((2, 9, 7), np.uint8), [np.zeros((9, 7), np.uint8)] * 2):
            with pytest.raises(ImageShapeError, match="Another shape") as raised:
                client.predict_many(images)
            assert raised.value.index == 1
    assert media_types == ["application/x-npy", "multipart/form-data", "multipart/form-data"]


@pytest.mark.parametrize(
    ("blocking_class", "asynchronous_class", "names"),
    [
        (
            ClassifierClient,
            AsyncClassifierClient,
            ["predict", "predict_many", "iter_predict", "feedback", "models", "close"],
        ),
        (DigitClient, AsyncDigitClient, ["read", "read_many", "iter_read"]),
    ],
)
def test_client_methods_have_same_signature_in_both_clients(
    blocking_class: type[ClassifierClient],
    asynchronous_class: type[AsyncClassifierClient],
    names: list[str],
) -> None:
    for name in names:
        blocking, asynchronous = getattr(blocking_class, name), getattr(asynchronous_class, name)
        assert inspect.signature(blocking).parameters == inspect.signature(asynchronous).parameters


def test_digit_clients_are_classifier_clients_that_read() -> None:
    assert issubclass(DigitClient, ClassifierClient)
    assert issubclass(AsyncDigitClient, AsyncClassifierClient)
    assert not hasattr(ClassifierClient, "read")
    assert not hasattr(AsyncClassifierClient, "read")
