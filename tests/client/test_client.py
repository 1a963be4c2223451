"""HTTP clients: against a gateway, and against a server with injected faults."""

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from digit_client import (
    AsyncClassifierClient,
    AsyncDigitClient,
    ClassifierClient,
    ConnectionFailedError,
    DeadlineExceededError,
    DigitClient,
    ImageShapeError,
    ModelNotFoundError,
    NoDigitError,
    Prediction,
    Reading,
    ReadingNotSupportedError,
    RetryPolicy,
    ServiceError,
    SeveralDigitsError,
    TaskCard,
    UnavailableError,
)
from digit_client.images import to_png
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

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def __enter__(self) -> "BlockingAsyncClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


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
def gateway_options(request: pytest.FixtureRequest, digits: Any) -> Iterator[dict[str, Any]]:
    """Arguments of a client for a gateway: in this process with a linear model, or as separate processes."""
    if request.param == "processes":
        yield {"url": request.getfixturevalue("gateway")}
        return
    images, labels = digits.images[:1000], digits.labels[:1000]
    with LinearModelServer(images, labels, with_is_digit=True) as model_server:
        flask_client = greenlet_loop.client(Settings(model_server=model_server.target, labels=()))
        yield {"url": "http://gateway.test", "transport": GatewayTransport(flask_client)}


class TestGateway:
    @pytest.fixture
    def client(self, client_type: Any, gateway_options: dict[str, Any]) -> Iterator[Any]:
        with client_type(**gateway_options) as client:
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
        assert models["name"] == "digits"
        assert models["versions"] == [{"version": 1, "state": "AVAILABLE"}]


COLORS = TaskCard("colors", ("red", "green", "blue"), (6, 8, 3), (-1.0, 1.0))


@pytest.fixture(scope="module")
def colors_options() -> Iterator[dict[str, Any]]:
    """Arguments of a client for a gateway whose model classifies colors."""
    images = np.zeros((3, *COLORS.shape), np.uint8)
    for color in range(3):
        images[color, :, :, color] = 255
    with LinearModelServer(images, np.arange(3, dtype=np.uint8), task=COLORS) as model_server:
        settings = Settings(model_server=model_server.target, model_name="colors", labels=())
        transport = GatewayTransport(greenlet_loop.client(settings))
        yield {"url": "http://gateway.test", "transport": transport}


class TestOtherTask:
    @pytest.fixture
    def client(self, client_type: Any, colors_options: dict[str, Any]) -> Iterator[Any]:
        with client_type(**colors_options) as client:
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
        assert TaskCard.from_document(client.models()["task"]) == COLORS

    def test_unknown_model_raises_model_not_found(
        self, client_type: Any, colors_options: dict[str, Any], picture: Any
    ) -> None:
        with client_type(**colors_options, model="colors") as client:
            assert client.predict(picture).label == "green"
        with client_type(**colors_options, model="nonsense") as client:
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

    @pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://"])
    def test_predict_invalid_url_raises_connection_failed(self, client_type: Any, url: str) -> None:
        with client_type(url, retries=FAST_RETRIES) as client, pytest.raises(ConnectionFailedError):
            client.predict(b"image")


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

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"authorization": request.headers.get("authorization")})

    api_key = key if key == "argument" else None
    with client_type(
        "http://gateway.test", api_key=api_key, transport=httpx.MockTransport(respond)
    ) as client:
        assert client.models() == {"authorization": f"Bearer {key}" if key else None}


@pytest.mark.parametrize("model", ["flowers", None])
def test_model_is_in_every_query(client_type: Any, model: str | None) -> None:
    queries: list[dict[str, str]] = []

    def respond(request: httpx.Request) -> httpx.Response:
        queries.append(dict(request.url.params))
        return httpx.Response(500)

    selected = {} if model is None else {"model": model}
    with client_type("http://gateway.test", model=model, transport=httpx.MockTransport(respond)) as client:
        for method, arguments in (
            ("predict", [b""]),
            ("predict_many", [[b""]]),
            ("read", [b""]),
            ("models", []),
        ):
            with pytest.raises(ServiceError):
                getattr(client, method)(*arguments)
        with pytest.raises(ServiceError):
            client.predict(b"", version=3)
    assert queries == [selected] * 4 + [selected | {"version": "3"}]


def test_predict_many_array_of_wrong_shape_is_sent_as_pictures(client_type: Any) -> None:
    media_types: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        media_types.append(request.headers["content-type"].partition(";")[0])
        return httpx.Response(422, json={"code": "wrong_shape", "detail": "Another shape.", "index": 1})

    with client_type("http://gateway.test", transport=httpx.MockTransport(refuse)) as client:
        for images in (np.zeros((2, 9, 7), np.uint8), [np.zeros((9, 7), np.uint8)]):
            with pytest.raises(ImageShapeError, match="Another shape") as raised:
                client.predict_many(images)
            assert raised.value.index == 1
    assert media_types == ["application/x-npy", "multipart/form-data", "multipart/form-data"]


@pytest.mark.parametrize(
    ("blocking_class", "asynchronous_class", "names"),
    [
        (ClassifierClient, AsyncClassifierClient, ["predict", "predict_many", "models", "close"]),
        (DigitClient, AsyncDigitClient, ["read", "read_many"]),
    ],
)
def test_client_methods_have_same_signature_in_both_clients(
    blocking_class: type[ClassifierClient],
    asynchronous_class: type[AsyncClassifierClient],
    names: list[str],
) -> None:
    for name in names:
        blocking, asynchronous = getattr(blocking_class, name), getattr(asynchronous_class, name)
        assert inspect.signature(blocking) == inspect.signature(asynchronous)
        assert inspect.iscoroutinefunction(asynchronous)


def test_digit_clients_are_classifier_clients_that_read() -> None:
    assert issubclass(DigitClient, ClassifierClient)
    assert issubclass(AsyncDigitClient, AsyncClassifierClient)
    assert not hasattr(ClassifierClient, "read")
    assert not hasattr(AsyncClassifierClient, "read")
