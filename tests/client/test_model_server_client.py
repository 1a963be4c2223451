"""ModelServerClient and AsyncModelServerClient against a gRPC server in this process."""

import asyncio
import io
import pickle
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from digit_client import (
    AsyncModelServerClient,
    DeadlineExceededError,
    ImageError,
    ModelNotFoundError,
    ModelServerClient,
    NotAnImageError,
    OverloadedError,
    Prediction,
    ReaderMissingError,
    Reading,
    ReadingNotSupportedError,
    RetryPolicy,
    ServiceError,
    TaskCard,
    TruncatedImageError,
)
from digit_client.images import to_png
from tests.client.blocking import BlockingAsync
from tests.client.drawn_numbers import draw_lines
from tests.client.linear_model_server import LinearModelServer


@pytest.fixture(scope="module")
def server(digits: Any) -> Iterator[LinearModelServer]:
    images, labels = digits.images[:1000], digits.labels[:1000]
    with LinearModelServer(images, labels, with_is_digit=True) as server:
        yield server


BlockingAsyncClient = partial(BlockingAsync, AsyncModelServerClient)
"""AsyncModelServerClient with ModelServerClient's blocking methods."""


@pytest.fixture(params=[ModelServerClient, BlockingAsyncClient])
def client(request: pytest.FixtureRequest, server: LinearModelServer) -> Iterator[Any]:
    retries = RetryPolicy(max_attempts=3, initial_backoff=0.001)
    with request.param(server.target, retries=retries) as client:
        yield client


def test_predict_many_several_batches_returns_predictions_in_order(
    client: Any, server: LinearModelServer, digits: Any
) -> None:
    client.predict(digits.one(0))
    calls = server.calls
    predictions = client.predict_many(digits.images[:300])
    assert server.calls == calls + 2
    assert np.mean([prediction.digit for prediction in predictions] == digits.labels[:300]) > 0.85


@pytest.fixture(scope="module")
def number(digits: Any) -> np.ndarray:
    """Picture with two lines: 17 and 4."""
    return draw_lines([digits.one(1), digits.one(7)], [digits.one(4)])


@pytest.fixture
def mixed(digits: Any, number: np.ndarray, tmp_path: Path) -> list[Any]:
    """Sources of every kind: two are one digit, one is three; blank, broken, and missing ones."""
    path = tmp_path / "three.png"
    path.write_bytes(to_png(draw_lines([digits.one(3)])))
    return [
        path,
        number,
        Image.fromarray(digits.one(4)),
        np.zeros((28, 28), np.uint8),
        to_png(number)[:200],
        tmp_path / "missing.png",
        b"no image",
        io.BytesIO(to_png(draw_lines([digits.one(7)]))),
    ]


def test_predict_many_puts_each_outcome_in_its_place(
    client: Any, server: LinearModelServer, mixed: list[Any]
) -> None:
    client.predict(mixed[0])
    calls = server.calls
    outcomes = client.predict_many(mixed, request_id="request-5")
    assert [describe(outcome) for outcome in outcomes] == [
        3,
        ("several_digits", 3),
        4,
        ("no_digit", None),
        TruncatedImageError,
        FileNotFoundError,
        NotAnImageError,
        7,
    ]
    # One call for the drawings, two for each other picture, on which the reader looks for digits.
    assert server.calls == calls + 4
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageError):
            assert outcome.index == index
        if not isinstance(outcome, OSError):
            assert outcome.request_id == "request-5"
        # Frames would keep the picture's pixels in memory.
        assert getattr(outcome, "__traceback__", None) is None


def describe(outcome: Any) -> Any:
    """Return the digit or text, the refusal, or the type of the error."""
    if isinstance(outcome, Exception):
        return type(outcome)
    if isinstance(outcome, Reading):
        return outcome.refusal or outcome.text
    return (outcome.refusal, outcome.count) if outcome.refusal else outcome.digit


def test_many_methods_raise_raises_first_error_of_batch(
    client: Any, digits: Any, number: np.ndarray, tmp_path: Path
) -> None:
    for method in (client.predict_many, client.read_many):
        with pytest.raises(NotAnImageError) as raised:
            method([digits.one(1), number, b"no image", tmp_path / "missing.png"], on_error="raise")
        assert raised.value.index == 2
        with pytest.raises(FileNotFoundError):
            method([digits.one(1), tmp_path / "missing.png", b"no image"], on_error="raise")


def test_predict_and_read_one_broken_picture_raise(client: Any, tmp_path: Path) -> None:
    for method in (client.predict, client.read):
        with pytest.raises(NotAnImageError) as raised:
            method(b"no image", request_id="request-6")
        assert (raised.value.index, raised.value.request_id) == (None, "request-6")
        with pytest.raises(FileNotFoundError):
            method(tmp_path / "missing.png")


def test_min_is_digit_replaces_the_default(client: Any, digits: Any) -> None:
    image = draw_lines([digits.one(3)])
    assert client.predict(image, min_is_digit=1.0).refusal == "no_digit"
    assert client.predict(image, min_is_digit=0.0).digit == 3
    assert client.read(digits.one(3), min_is_digit=0.0).text == "3"


def test_every_call_gives_equal_results(server: LinearModelServer, digits: Any, number: np.ndarray) -> None:
    pictures = [draw_lines([digits.one(label)]) for label in range(10)]
    files: list[Any] = [*map(to_png, pictures), *pictures]
    with ModelServerClient(server.target) as client, BlockingAsyncClient(server.target) as other:
        predictions = client.predict_many(files, on_error="raise")
        readings = client.read_many([*files, number])
        each: Any
        for each in (client, other):
            assert each.predict_many(files, on_error="raise") == predictions
            assert each.read_many([*files, number], on_error="raise") == readings
            assert sorted(each.iter_predict(files)) == [*enumerate(predictions)]
            assert sorted(each.iter_read([*files, number])) == [*enumerate(readings)]
            # The server's rounding depends on the size of the batch.
            for file, prediction in zip(files, predictions, strict=True):
                alone = each.predict(file)
                assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)
                assert alone.is_digit == pytest.approx(prediction.is_digit, abs=1e-5)


def test_iter_predict_failed_call_is_outcome_of_each_image_of_its_batch(
    client: Any, server: LinearModelServer, digits: Any
) -> None:
    client.predict(digits.one(1))
    server.failures = [grpc.StatusCode.INTERNAL]
    outcomes = dict(client.iter_predict(digits.images[:300], concurrency=1))
    assert {type(outcomes[index]) for index in range(256)} == {ServiceError}
    assert {type(outcomes[index]) for index in range(256, 300)} == {Prediction}
    server.failures = [grpc.StatusCode.INTERNAL]
    with pytest.raises(ServiceError):
        client.predict_many(digits.images[:300])


def test_predict_many_timeout_bounds_each_batch(
    client: Any, server: LinearModelServer, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.predict(digits.one(1))
    monkeypatch.setattr(server, "delay", 0.3)
    with pytest.raises(DeadlineExceededError) as raised:
        client.predict(digits.one(1), timeout=0.05, request_id="request-3")
    assert raised.value.request_id == "request-3"
    # Without refusals, each batch is one call.
    predictions = client.predict_many(digits.images[:1024], min_is_digit=0.0, timeout=1.1, concurrency=1)
    assert len(predictions) == 1024


def test_predict_preparation_does_not_count_as_waiting(
    client: Any, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.predict(digits.one(1))

    class SlowFile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            time.sleep(0.6)
            return super().read(size)

    assert client.predict(SlowFile(to_png(digits.one(3))), timeout=0.5).digit == 3


def test_many_methods_refuse_one_image_and_unknown_options(client: Any) -> None:
    for method in (client.predict_many, client.iter_predict, client.read_many, client.iter_read):
        with pytest.raises(TypeError, match="put it in a list"):
            method("five.png")
        with pytest.raises(TypeError, match="nonsense"):
            method([], nonsense=1)
        with pytest.raises(ValueError, match="not both"):
            method([], version=1, label="stable")


def test_without_reader_predicts_and_reading_raises(
    client: Any,
    server: LinearModelServer,
    digits: Any,
    number: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "has_reader", False)
    assert client.predict(digits.one(3)).digit == 3
    assert client.predict(number).refusal == "no_digit"
    with pytest.raises(ReaderMissingError, match="digits train") as missing:
        client.read(number, request_id="request-6")
    assert missing.value.request_id == "request-6"


def test_request_id_is_sent_and_on_results_and_errors(
    client: Any, server: LinearModelServer, digits: Any, number: np.ndarray
) -> None:
    assert client.predict(digits.one(1), request_id="request-1").request_id == "request-1"
    assert client.read(number, request_id="request-2").request_id == "request-2"
    assert server.request_ids[-3:] == ["request-1", "request-2", "request-2"]
    with pytest.raises(ModelNotFoundError) as not_found:
        client.predict(digits.one(1), version=99, request_id="request-4")
    assert not_found.value.request_id == "request-4"
    random = [client.predict(digits.one(1)).request_id for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in random)
    assert random[0] != random[1]
    assert server.request_ids[-2:] == random


def test_call_without_version_asks_for_the_clients_label(server: LinearModelServer, digits: Any) -> None:
    image = digits.one(1)
    for label in ("stable", None):
        with ModelServerClient(server.target, label=label) as client:
            prediction = client.predict(image)
            assert prediction.digit == 1
    with ModelServerClient(server.target, label="canary") as client:
        assert client.predict(image, version=prediction.model_version).digit == 1
        with pytest.raises(ModelNotFoundError, match="canary"):
            client.predict(image)


def test_with_options_shares_connection(server: LinearModelServer, digits: Any) -> None:
    with ModelServerClient(server.target, timeout=5) as client:
        client.predict(digits.one(1))
        card_calls = server.card_calls
        other = client.with_options(timeout=2, retries=RetryPolicy(max_attempts=1))
        assert (client.timeout, other.timeout) == (5, 2)
        assert other.predict(digits.one(1)).digit == 1
        assert server.card_calls == card_calls
        server.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED]
        with pytest.raises(OverloadedError):
            other.predict(digits.one(1))
        server.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert client.predict(digits.one(1)).digit == 1
    with pytest.raises(RuntimeError, match="the client is closed"):
        other.predict(digits.one(1))


@pytest.mark.parametrize("kind", [ModelServerClient, AsyncModelServerClient])
def test_client_is_pickled_without_connection(
    kind: Any, server: LinearModelServer, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_TIMEOUT", "7")
    client = kind(server.target, name="flowers", retries=RetryPolicy(max_attempts=1))
    copy = pickle.loads(pickle.dumps(client))
    assert repr(copy) == repr(client) == f"{kind.__name__}('{server.target}', name='flowers', timeout=7)"
    credentials = grpc.ssl_channel_credentials()
    with pytest.raises(TypeError, match="a client with credentials can't be pickled"):
        pickle.dumps(kind(server.target, credentials=credentials))
    blocking = ModelServerClient(server.target)
    blocking.predict(digits.one(1))
    with pickle.loads(pickle.dumps(blocking)) as copy:
        assert copy.predict(digits.one(1)).digit == 1
    blocking.close()


async def test_async_client_needs_no_thread_of_the_loops_executor(
    server: LinearModelServer, digits: Any
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with AsyncModelServerClient(server.target) as client:
        await client.predict(digits.one(1))
        calls, server.delay = server.calls, 0.5
        try:
            waiting = [asyncio.ensure_future(client.predict(digits.one(1))) for _ in range(3)]
            while server.calls < calls + 3:
                await asyncio.sleep(0.01)
            assert not any(call.done() for call in waiting)
            assert [prediction.digit for prediction in await asyncio.gather(*waiting)] == [1, 1, 1]
        finally:
            server.delay = 0.0


def test_client_without_target_takes_environment(
    server: LinearModelServer, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_MODEL_SERVER", server.target)
    with ModelServerClient() as client:
        assert client.predict(digits.one(1)).digit == 1


COLORS = TaskCard("colors", ("dark", "light"), (12, 16, 3), (-1.0, 1.0), "resize", "pad")


@pytest.mark.parametrize("kind", [ModelServerClient, BlockingAsyncClient])
def test_other_task_is_read_once_and_answered_as_its_card_says(kind: Any, tmp_path: Path) -> None:
    pictures = np.stack([np.full(COLORS.shape, level, np.uint8) for level in (20, 230)])
    with (
        LinearModelServer(pictures, np.array([0, 1], np.uint8), task=COLORS) as server,
        kind(server.target, name="colors") as client,
    ):
        image = np.full((120, 160, 3), 230, np.uint8)
        path = tmp_path / "light.png"
        path.write_bytes(to_png(image))
        sources: list[Any] = [
            image,
            path,
            path.read_bytes(),
            Image.fromarray(image),
            io.BytesIO(to_png(image)),
        ]
        (prediction,) = {client.predict(source) for source in sources}
        assert (prediction.label, prediction.digit, prediction.is_digit) == ("light", None, None)
        assert client.predict_many(pictures) == client.predict_many(list(pictures))
        calls = server.calls
        for read, images in ((client.read, image), (client.read_many, [image])):
            with pytest.raises(ReadingNotSupportedError, match="classifies colors; it reads no numbers"):
                read(images)
        assert (server.calls, server.card_calls) == (calls, 1)


@pytest.mark.parametrize("kind", [ModelServerClient, AsyncModelServerClient])
def test_client_of_url_raises_value_error_with_remedy(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"gRPC address is host:port, as 127\.0\.0\.1:8500"):
        kind("http://127.0.0.1:8501")


async def test_async_predict_many_abandoned_ends_its_threads(server: LinearModelServer, digits: Any) -> None:
    async with AsyncModelServerClient(server.target) as client:
        results = client.iter_predict([to_png(image) for image in digits.images[:600]], concurrency=2)
        await anext(results)
        await results.aclose()
        assert (await client.predict(digits.one(1))).digit == 1
