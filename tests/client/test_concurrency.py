"""Window of concurrent requests: bounded memory, results as they arrive, errors."""

import asyncio
import gc
import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from digit_client import _concurrency


class Sender:
    """Blocking or asyncio sending of batches that counts those in flight. A batch is its own answer."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()

    def __call__(self, batch: Sequence[int], stopped: threading.Event) -> Sequence[int]:
        self.stopped = stopped
        with self._counted():
            time.sleep(0.01)
        return self._answer(batch)

    async def send(self, batch: Sequence[int], stopped: threading.Event) -> Sequence[int]:
        self.stopped = stopped
        with self._counted():
            await asyncio.sleep(0.01)
        return self._answer(batch)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1

    def _answer(self, batch: Sequence[int]) -> Sequence[int]:
        if 13 in batch:
            raise LookupError(f"no {batch}")
        return batch


@pytest.fixture(params=["blocking", "asyncio"])
def collect(request: pytest.FixtureRequest) -> Any:
    """Function that returns the items of all batches in the order of their answers."""
    if request.param == "blocking":
        return lambda batches, sender, concurrency: list(_concurrency.send_many(batches, sender, concurrency))

    def collect_async(batches: Any, sender: Sender, concurrency: int) -> list[int]:
        async def run() -> list[int]:
            return [item async for item in _concurrency.async_send_many(batches, sender.send, concurrency)]

        return asyncio.run(run())

    return collect_async


def test_send_many_sends_concurrency_batches_at_a_time(collect: Any) -> None:
    sender = Sender()

    def batches() -> Iterator[list[int]]:
        for number in range(50, 70):
            assert sender.in_flight <= 3
            yield [2 * number, 2 * number + 1]

    assert sorted(collect(batches(), sender, 3)) == list(range(100, 140))
    assert sender.most_in_flight == 3
    assert collect([], sender, 3) == []


def test_send_many_error_of_send_ends_it(collect: Any) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[int]]:
        for number in range(100):
            taken.append(number)
            yield [number]

    with pytest.raises(LookupError, match=r"no \[13\]"):
        collect(batches(), Sender(), 2)
    assert len(taken) < 20


def test_send_many_abandoned_takes_no_more_batches_and_stops_those_in_flight() -> None:
    sender, numbers = Sender(), iter(range(20, 100))
    items = _concurrency.send_many(([number] for number in numbers), sender, 2)
    next(items)
    assert not sender.stopped.is_set()
    items.close()
    assert sender.stopped.is_set()
    assert len(list(numbers)) > 70


async def test_async_send_many_abandoned_cancels_requests_in_flight() -> None:
    sender = Sender()
    items = _concurrency.async_send_many(([number] for number in range(20, 100)), sender.send, 2)
    await anext(items)
    assert not sender.stopped.is_set()
    await items.aclose()
    assert sender.in_flight == 0
    assert sender.stopped.is_set()


async def test_async_send_many_several_errors_at_once_raise_the_first_and_log_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(batch: int, _stopped: threading.Event) -> list[int]:
        raise LookupError(f"no {batch}")

    with pytest.raises(LookupError):
        async for _ in _concurrency.async_send_many(range(8), fail, 4):
            pass
    gc.collect()
    assert caplog.messages == []


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
