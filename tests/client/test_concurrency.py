"""Window of concurrent requests: bounded memory, results as they arrive, errors."""

import gc
import io
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from werkzeug.wrappers import Response

from digit_client import AsyncClient, Client, RetryPolicy, _concurrency
from digit_client._flow import Flow
from digit_client._retries import Deadline, Retrier
from digit_core import errors
from digit_core.backends import ASYNCIO
from tests.client.faulty_server import FaultyServer, failure
from tests.core.blocking import BlockingAsync


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        server.responses = [fail_soon]
        yield server


@pytest.fixture(params=[Client, partial(BlockingAsync, AsyncClient)], ids=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, server: FaultyServer) -> Iterator[Any]:
    with request.param(server.url, retries=RetryPolicy(max_attempts=1)) as client:
        yield client


def fail_soon() -> Response:
    time.sleep(0.02)
    return failure(500)()


def test_iter_read_sends_concurrency_requests_at_a_time(client: Any, server: FaultyServer) -> None:
    def images() -> Iterator[bytes]:
        for _ in range(80):
            assert server.in_flight <= 3
            yield b"image"

    outcomes = dict(client.iter_read(images(), concurrency=3))
    assert sorted(outcomes) == [*range(80)]
    assert (server.requests, server.most_in_flight) == (80, 3)
    assert list(client.iter_read([])) == []


def test_read_many_error_of_a_request_takes_the_places_of_its_images(client: Any) -> None:
    outcomes = client.read_many([b"image"] * 16, concurrency=1)
    assert [type(outcome) for outcome in outcomes] == [errors.ServiceError] * 16


def test_iter_read_abandoned_takes_no_more_images(client: Any) -> None:
    images = iter([b"image"] * 800)
    outcomes = client.iter_read(images, concurrency=2)
    next(outcomes)
    outcomes.close()
    time.sleep(0.1)
    assert len(list(images)) > 700


async def test_async_send_many_several_errors_at_once_raise_the_first_and_log_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(batch: int) -> list[int]:
        raise LookupError(f"no {batch}")

    flow = Flow(Retrier(RetryPolicy(), ASYNCIO.sleep), 4, 1, Deadline(None))
    with pytest.raises(LookupError):
        async for _ in _concurrency.async_send_many(range(8), fail, flow):
            pass
    gc.collect()
    assert caplog.messages == []
    assert flow.is_stopped


@pytest.mark.parametrize(
    "images",
    ["five.jpg", b"image", Path("five.jpg"), bytearray(b"image"), io.BytesIO(b"image"), None],
    ids=type,
)
def test_check_many_refuses_one_image_and_no_request(images: object) -> None:
    with pytest.raises(TypeError, match="put it in a list"):
        _concurrency.check_many(images, 1)
    with pytest.raises(ValueError, match="at least 1"):
        _concurrency.check_many([images], 0)


def test_lazy_connection_of_a_forked_process_is_another_one() -> None:
    connection = _concurrency.LazyConnection(object, lambda: None)
    first = connection.get()
    child = os.fork()
    if child == 0:
        os._exit(7 if connection.get() is not first else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert connection.get() is first
