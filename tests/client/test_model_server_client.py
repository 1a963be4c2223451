"""ModelServerClient and AsyncModelServerClient against a gRPC server in this process."""

import asyncio
import io
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from digit_client import AsyncModelServerClient, ModelServerClient, RetryPolicy
from digit_core import errors
from digit_core.artifact.task_card import CardInput, TaskCard
from digit_core.images import to_png
from tests.core.blocking import BlockingAsync
from tests.core.linear_model_server import LinearModelServer, dark_and_light


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


def test_read_many_timeout_bounds_each_call(
    server: LinearModelServer, number: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServerClient(server.target) as client:
        client.read(number)
        monkeypatch.setattr(server, "delay", 0.03)
        readings = client.read_many([number] * 30, timeout=0.6)
    assert {getattr(reading, "text", reading) for reading in readings} == {"17\n4"}


def test_predict_preparation_does_not_count_as_waiting(server: LinearModelServer, digits: Any) -> None:
    class SlowFile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            time.sleep(0.6)
            return super().read(size)

    with ModelServerClient(server.target) as client:
        client.predict(digits.one(1))
        assert client.predict(SlowFile(to_png(digits.one(3))), timeout=0.5).digit == 3


def test_without_reader_predicts_and_reading_raises(
    client: Any, server: LinearModelServer, digits: Any, number: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "has_reader", False)
    assert client.predict(digits.one(3)).digit == 3
    assert client.predict(number).refusal == "no_digit"
    with pytest.raises(errors.ReaderMissingError, match="digits train") as missing:
        client.read(number, request_id="request-6")
    assert missing.value.request_id == "request-6"


def test_call_without_version_asks_for_the_clients_label(server: LinearModelServer, digits: Any) -> None:
    for label in ("stable", None):
        with ModelServerClient(server.target, label=label) as client:
            assert client.predict(digits.one(1)).digit == 1
    with ModelServerClient(server.target, label="canary") as client:
        assert client.predict(digits.one(1), version=1).digit == 1
        with pytest.raises(errors.ModelNotFoundError, match="canary"):
            client.predict(digits.one(1))


def test_with_options_shares_connection(server: LinearModelServer, digits: Any) -> None:
    with ModelServerClient(server.target, timeout=5) as client:
        client.predict(digits.one(1))
        card_calls = server.card_calls
        other = client.with_options(timeout=2, retries=RetryPolicy(max_attempts=1))
        assert (client.timeout, other.timeout) == (5, 2)
        assert other.predict(digits.one(1)).digit == 1
        assert server.card_calls == card_calls
        server.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED]
        with pytest.raises(errors.OverloadedError):
            other.predict(digits.one(1))
        server.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert client.predict(digits.one(1)).digit == 1
    with pytest.raises(RuntimeError, match="the client is closed"):
        other.predict(digits.one(1))


def test_client_is_pickled_without_connection_and_not_with_credentials(
    server: LinearModelServer, digits: Any
) -> None:
    with ModelServerClient(server.target) as client:
        client.predict(digits.one(1))
        with pickle.loads(pickle.dumps(client)) as copy:
            assert copy.predict(digits.one(1)).digit == 1
    with pytest.raises(TypeError, match="a client with credentials can't be pickled"):
        pickle.dumps(ModelServerClient(server.target, credentials=grpc.ssl_channel_credentials()))


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


def test_iter_read_abandoned_makes_no_further_call(
    client: Any, server: LinearModelServer, number: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.read(number)
    monkeypatch.setattr(server, "delay", 0.02)
    # The second batch is in flight when the first one is answered.
    outcomes = client.iter_read([*[b"no image"] * 256, *[number] * 40], concurrency=2)
    next(outcomes)
    outcomes.close()
    calls = server.calls
    time.sleep(0.2)
    assert server.calls <= calls + 1


@pytest.mark.parametrize("connect", [ModelServerClient, BlockingAsyncClient])
def test_predict_after_promotion_prepares_for_the_version_that_answers(connect: Any) -> None:
    old = TaskCard("colors", ("dark", "light"), CardInput((2, 3), (-1.0, 1.0)))
    new = replace(old, labels=("night", "day"), input=replace(old.input, shape=(4, 6)))
    pictures = [np.full((20, 30), level, np.uint8) for level in (0, 255)]
    classes = np.arange(2, dtype=np.uint8)
    with (
        LinearModelServer(dark_and_light(old), classes, task=old) as server,
        connect(server.target, name="colors") as client,
    ):
        assert [each.label for each in client.predict_many(pictures)] == ["dark", "light"]
        server.publish(dark_and_light(new), classes, task=new)
        answers = client.predict_many(pictures)
    assert [(each.label, each.model_version) for each in answers] == [("night", 2), ("day", 2)]
