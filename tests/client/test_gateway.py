"""HTTP clients against a gateway, with the same results as the clients of the model server."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flask.testing import FlaskClient

from digit_client import (
    DIGITS,
    AsyncClient,
    Client,
    ImageError,
    ImageShapeError,
    ModelNotFoundError,
    ModelServerClient,
    ModelVersion,
    NotAnImageError,
    ReadingNotSupportedError,
    TaskCard,
)
from digit_client.images import decode, to_png
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.client.blocking import BlockingAsync
from tests.client.drawn_numbers import draw_lines
from tests.client.linear_model_server import LinearModelServer


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Function that returns a client whose requests go to the transport."""

    def connect(transport: Any, **options: Any) -> Any:
        if request.param == "blocking":
            return Client("http://gateway.test", http_client=httpx.Client(transport=transport), **options)
        http_client = httpx.AsyncClient(transport=transport)
        return BlockingAsync(AsyncClient, "http://gateway.test", http_client=http_client, **options)

    return connect


class GatewayTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """httpx transport that passes requests to the gateway's Flask application, and counts them."""

    def __init__(self, flask_client: FlaskClient) -> None:
        self._flask_client = flask_client
        self.requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
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


@pytest.fixture(scope="module")
def linear_server(digits: Any) -> Iterator[LinearModelServer]:
    with LinearModelServer(digits.images[:1000], digits.labels[:1000], with_is_digit=True) as server:
        yield server


@pytest.fixture(scope="module")
def transport(linear_server: LinearModelServer) -> GatewayTransport:
    # The searches for digits share a thread, and the machine with other tests.
    settings = Settings(model_server=linear_server.target, default_label="", deadline=60)
    return GatewayTransport(greenlet_loop.client(settings))


@pytest.fixture
def client(connect: Callable[..., Any], transport: GatewayTransport) -> Iterator[Any]:
    with connect(transport, timeout=60) as client:
        yield client


@pytest.mark.e2e
def test_predict_and_read_gateway_process_answers(gateway: str, digits: Any) -> None:
    for connected in (Client(gateway), BlockingAsync(AsyncClient, gateway)):
        with connected as client:
            assert client.predict(digits.one(7)).digit == 7
            assert client.read(draw_lines([digits.one(1), digits.one(7)])).text == "17"


def test_every_source_has_same_results_as_from_model_server(
    client: Any, linear_server: LinearModelServer, digits: Any, tmp_path: Path
) -> None:
    number = draw_lines([digits.one(1), digits.one(7)], [digits.one(4)])
    path = tmp_path / "number.png"
    path.write_bytes(to_png(number))
    pictures = [path, digits.one(3), number, np.zeros((28, 28), np.uint8), to_png(digits.one(8))]
    with ModelServerClient(linear_server.target) as direct:
        for method in ("predict", "read"):
            for picture in pictures:
                expected = getattr(direct, method)(picture, include="image").to_dict()
                assert_same(getattr(client, method)(picture, include="image").to_dict(), expected)


def assert_same(result: Any, expected: Any) -> None:
    """Compare results, of which floats depend on the size of the batch."""
    if isinstance(expected, dict):
        for name in {*result, *expected} - {"request_id", "request_index"}:
            assert_same(result[name], expected[name])
    elif isinstance(expected, list):
        for each, other in zip(result, expected, strict=True):
            assert_same(each, other)
    else:
        assert result == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(("method", "count"), [("predict_many", 130), ("read_many", 34)])
def test_many_pictures_have_each_an_outcome_and_few_requests(
    client: Any, transport: GatewayTransport, digits: Any, method: str, count: int
) -> None:
    images: list[Any] = [to_png(image) for image in digits.images[:count]]
    images[3] = images[32] = b"no image"
    images[20] = to_png(np.zeros((28, 28), np.uint8))
    images[21] = to_png(draw_lines([digits.one(1), digits.one(7)]))
    before = transport.requests
    outcomes = getattr(client, method)(images)
    assert transport.requests == before + 3
    errors = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, ImageError)}
    assert {index: type(error) for index, error in errors.items()} == {
        3: NotAnImageError,
        32: NotAnImageError,
    }
    assert [error.index for error in errors.values()] == [3, 32]
    assert all(error.request_id for error in errors.values())
    assert outcomes[20].refusal == "no_digit"
    if method == "predict_many":
        assert (outcomes[21].refusal, outcomes[21].count, outcomes[21].digit) == ("several_digits", 2, None)
    else:
        assert outcomes[21].text == "17"
    with pytest.raises(NotAnImageError) as raised:
        getattr(client, method)(images, on_error="raise", concurrency=1)
    assert raised.value.index == 3


def test_array_has_same_outcomes_as_files(client: Any, digits: Any) -> None:
    images = digits.images[:100]
    from_array = client.predict_many(images)
    assert [each.digit for each in from_array] == [each.digit for each in client.predict_many(list(images))]
    large = np.kron(digits.typical(3, 2), np.ones((1, 2, 2), np.uint8))
    assert [prediction.digit for prediction in client.predict_many(large)] == [3, 3]
    assert [reading.text for reading in client.read_many(large)] == ["3", "3"]


def test_options_reach_the_gateway(client: Any, digits: Any) -> None:
    image = digits.one(1)
    assert client.predict(image, version=1).model_version == 1
    for method in (client.predict, client.read):
        with pytest.raises(ModelNotFoundError):
            method(image, label="nonsense")
    assert client.predict(image, min_is_digit=1.0).refusal == "no_digit"
    assert np.array_equal(decode(client.predict(image, include="image").image), image)
    number = draw_lines([image, digits.one(7)])
    assert {decode(digit.image).shape for digit in client.read(number, include="image").digits} == {(28, 28)}


def test_models_lists_versions(client: Any) -> None:
    models = client.models()
    assert (models.name, models.versions) == ("digits", (ModelVersion(1, "AVAILABLE"),))
    assert models.task == DIGITS
    assert models.request_id


COLORS = TaskCard("colors", ("red", "green", "blue"), (6, 8, 3), (-1.0, 1.0))


@pytest.fixture(scope="module")
def serve_colors() -> Iterator[Callable[[TaskCard], GatewayTransport]]:
    """Function that returns a transport to a gateway whose model classifies colors."""
    images = np.zeros((3, *COLORS.shape), np.uint8)
    for color in range(3):
        images[color, :, :, color] = 255
    opened = []

    def serve(task: TaskCard) -> GatewayTransport:
        model_server = LinearModelServer(images, np.arange(3, dtype=np.uint8), task=task)
        opened.append(model_server)
        settings = Settings(model_server=model_server.target, model_name="colors", default_label="")
        return GatewayTransport(greenlet_loop.client(settings))

    yield serve
    for model_server in opened:
        model_server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def colors(serve_colors: Callable[[TaskCard], GatewayTransport]) -> GatewayTransport:
    return serve_colors(COLORS)


GREEN = np.full((30, 20, 3), (0, 200, 0), np.uint8)


def test_other_task_is_answered_as_its_card_says(
    connect: Callable[..., Any], colors: GatewayTransport
) -> None:
    with connect(colors) as client:
        prediction = client.predict(GREEN)
        assert (prediction.label, prediction.index, prediction.labels) == ("green", 1, COLORS.labels)
        assert (prediction.confidence, prediction.is_digit) == (max(prediction.probabilities), None)
        assert prediction.digit is None
        images = np.random.default_rng(0).integers(0, 256, (5, *COLORS.shape), np.uint8)
        assert client.predict_many(images) == client.predict_many(list(images))
        assert client.models().task == COLORS
        with pytest.raises(ReadingNotSupportedError) as raised:
            client.read(GREEN)
        assert (raised.value.status, raised.value.reason) == (404, "reading_not_supported")


def test_array_of_another_shape_is_prepared_or_refused_in_its_places(
    connect: Callable[..., Any],
    colors: GatewayTransport,
    serve_colors: Callable[[TaskCard], GatewayTransport],
) -> None:
    with connect(colors) as client:
        assert [each.label for each in client.predict_many(np.stack([GREEN] * 2))] == ["green"] * 2
    exact = serve_colors(TaskCard(COLORS.name, COLORS.labels, COLORS.shape, COLORS.range, "none"))
    with connect(exact) as client:
        outcomes = client.predict_many(np.stack([GREEN] * 2))
        assert [(type(outcome), outcome.index) for outcome in outcomes] == [
            (ImageShapeError, 0),
            (ImageShapeError, 1),
        ]
        assert exact.requests == 1


def test_unknown_model_raises_model_not_found(connect: Callable[..., Any], colors: GatewayTransport) -> None:
    with connect(colors, model="colors") as client:
        assert client.predict(GREEN).label == "green"
    with connect(colors, model="nonsense") as client:
        for call in (client.models, partial(client.predict, GREEN), partial(client.read, GREEN)):
            with pytest.raises(ModelNotFoundError):
                call()
