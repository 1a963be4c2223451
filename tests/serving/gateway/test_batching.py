"""Dynamic batching before a model server that answers when the test lets it; no socket, no greenlets."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_client import DeadlineExceededError, Prediction, ServiceError, UnavailableError
from digit_client.tfserving.codec import Batch, ModelRef
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.context import RequestContext

MODEL = ModelRef("digits")


def context(request_id: str) -> RequestContext:
    now = time.perf_counter()
    return RequestContext(request_id, "/v1/predict", "POST", started=now, begun=now)


def showing(*numbers: int) -> NDArray[np.uint8]:
    """Images whose first pixel tells what the server below is to answer."""
    batch = np.zeros((len(numbers), 28, 28), np.uint8)
    batch[:, 0, 0] = numbers
    return batch


@dataclass
class Call:
    model: ModelRef
    numbers: list[int]
    request_id: str
    timeout: float


@dataclass
class Server:
    """Stands in for AsyncModelServer: notes its calls, and answers while `open` is set."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)
    error: Exception | None = None

    async def predict(
        self,
        batch: Batch,
        model: ModelRef,
        *,
        timeout: float,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> list[Prediction]:
        numbers = batch.reshape(len(batch), -1)[:, 0].astype(int).tolist()
        self.calls.append(Call(model, numbers, request_id or "", timeout))
        try:
            async with asyncio.timeout(timeout):
                await self.open.wait()
        except TimeoutError:
            raise DeadlineExceededError("late") from None
        if self.error:
            raise self.error
        return [Prediction(number, 1.0, (), 1) for number in numbers]

    @property
    def numbers(self) -> list[list[int]]:
        """First pixels of the images of each call."""
        return [call.numbers for call in self.calls]


class Callers:
    def __init__(self, calls: int = 1, max_images: int = 256) -> None:
        self.server = Server()
        self.batcher = Batcher(
            self.server,  # type: ignore[arg-type]
            max_inflight_calls=calls,
            max_images=max_images,
        )

    def ask(
        self, *numbers: int, model: ModelRef = MODEL, timeout: float = 5.0, request_id: str = ""
    ) -> asyncio.Task[list[Prediction]]:
        one = context(request_id or "+".join(map(str, numbers)))
        return asyncio.create_task(
            self.batcher.predict(showing(*numbers), model, timeout=timeout, context=one)
        )

    async def ask_later(self, *numbers: int, **options: object) -> asyncio.Task[list[Prediction]]:
        """Ask once the requests before have been called for."""
        task = self.ask(*numbers, **options)  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        return task


async def digits(task: asyncio.Task[list[Prediction]]) -> list[int]:
    return [prediction.digit for prediction in await task]


async def test_lone_request_has_a_call_of_its_own() -> None:
    callers = Callers()
    callers.server.open.set()
    assert await digits(callers.ask(3, 1, 4)) == [3, 1, 4]
    assert await digits(callers.ask(1)) == [1]
    assert callers.server.numbers == [[3, 1, 4], [1]]
    assert [call.request_id for call in callers.server.calls] == ["3+1+4", "1"]


async def test_requests_that_arrive_together_share_a_call() -> None:
    callers = Callers()
    callers.server.open.set()
    tasks = [callers.ask(number) for number in range(8)]
    assert [await digits(task) for task in tasks] == [[number] for number in range(8)]
    assert callers.server.numbers == [list(range(8))]


async def test_requests_during_a_call_share_the_next_one() -> None:
    callers = Callers()
    tasks = [await callers.ask_later(*numbers) for numbers in [(0,), (1, 2), (3,), (4, 5, 6)]]
    callers.server.open.set()
    assert [await digits(task) for task in tasks] == [[0], [1, 2], [3], [4, 5, 6]]
    assert callers.server.numbers == [[0], [1, 2, 3, 4, 5, 6]]
    assert callers.server.calls[1].request_id == "1+2,3,4+5+6"


async def test_calls_in_flight_are_bounded() -> None:
    callers = Callers(calls=2)
    tasks = [await callers.ask_later(number) for number in range(4)]
    assert callers.server.numbers == [[0], [1]]
    callers.server.open.set()
    assert [await digits(task) for task in tasks] == [[0], [1], [2], [3]]


async def test_call_holds_no_more_images_than_max_images() -> None:
    callers = Callers(max_images=3)
    requests = [(0,), (1, 1), (2, 2), (3, 3, 3, 3), (4,)]
    tasks = [await callers.ask_later(*numbers) for numbers in requests]
    callers.server.open.set()
    assert [await digits(task) for task in tasks] == [list(numbers) for numbers in requests]
    assert callers.server.numbers == [[0], [1, 1], [2, 2], [3, 3, 3, 3], [4]]


async def test_call_holds_no_more_request_ids_than_metadata_takes() -> None:
    callers = Callers()
    callers.server.open.set()
    tasks = [callers.ask(5, request_id=f"{number:0128}") for number in range(150)]
    assert [await digits(task) for task in tasks] == [[5]] * 150
    assert max(len(call.request_id) for call in callers.server.calls) < 8000
    assert sum(map(len, callers.server.numbers)) == 150


async def test_requests_for_other_models_or_types_have_calls_of_their_own() -> None:
    callers = Callers()
    version = ModelRef("digits", version=7)
    tasks = [
        await callers.ask_later(0),
        await callers.ask_later(1),
        await callers.ask_later(2, model=version),
    ]
    numbers = callers.batcher.predict(
        np.full((1, 784), 3, np.float32), MODEL, timeout=5, context=context("floats")
    )
    floats = asyncio.create_task(numbers)
    await asyncio.sleep(0.01)
    callers.server.open.set()
    assert [await digits(task) for task in [*tasks, floats]] == [[0], [1], [2], [3]]
    assert callers.server.numbers == [[0], [2], [3], [1]]
    assert callers.server.calls[1].model == version


@pytest.mark.parametrize("error", [UnavailableError("no"), ServiceError("wrong"), RuntimeError("a bug")])
async def test_error_of_a_call_reaches_all_who_share_it(error: Exception) -> None:
    callers = Callers()
    callers.server.error = error
    tasks = [await callers.ask_later(number) for number in range(3)]
    callers.server.open.set()
    raised = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(one), str(one)) for one in raised] == [(type(error), str(error))] * 3
    assert len(set(map(id, raised))) == 3
    callers.server.error = None
    assert await digits(callers.ask(3)) == [3]


async def test_deadline_of_one_request_leaves_the_others_alone() -> None:
    callers = Callers()
    first = await callers.ask_later(0, timeout=0.3)
    waiting = await callers.ask_later(1, timeout=0.2), await callers.ask_later(2)
    sharing = callers.ask(3)
    with pytest.raises(DeadlineExceededError):
        await waiting[0]
    with pytest.raises(DeadlineExceededError):
        await first
    callers.server.open.set()
    assert await digits(waiting[1]) == [2]
    assert await digits(sharing) == [3]
    assert callers.server.numbers == [[0], [2, 3]]


async def test_call_is_given_the_last_deadline_of_those_who_share_it() -> None:
    callers = Callers()
    impatient, patient = callers.ask(1, timeout=0.1), callers.ask(2, timeout=4)
    with pytest.raises(DeadlineExceededError):
        await impatient
    assert 3.5 < callers.server.calls[0].timeout <= 4
    callers.server.open.set()
    assert await digits(patient) == [2]


async def test_cancelled_request_leaves_the_others_alone() -> None:
    callers = Callers()
    first = await callers.ask_later(0)
    waiting, sharing = await callers.ask_later(1), await callers.ask_later(2)
    first.cancel()
    waiting.cancel()
    await asyncio.sleep(0.01)
    callers.server.open.set()
    assert await digits(sharing) == [2]
    assert callers.server.numbers == [[0], [2]]


async def test_requests_of_a_model_that_times_out_are_refused_at_once() -> None:
    callers = Callers()
    late = await asyncio.gather(
        *(callers.ask(number, timeout=0.1) for number in range(3)), return_exceptions=True
    )
    assert {type(one) for one in late} == {DeadlineExceededError}
    probe = callers.ask(3, timeout=0.1)
    with pytest.raises(UnavailableError):
        await callers.ask(4)
    with pytest.raises(DeadlineExceededError):
        await probe
    callers.server.open.set()
    assert await digits(callers.ask(5, model=ModelRef("digits", version=2))) == [5]


async def test_wait_and_call_are_written_into_the_record() -> None:
    callers = Callers()
    callers.server.open.set()
    records = [context(str(number)) for number in range(2)]
    await asyncio.gather(
        *(callers.batcher.predict(showing(1, 2), MODEL, timeout=5, context=one) for one in records)
    )
    calls = [one.waits[0].call for one in records]
    assert calls[0] is calls[1]
    assert calls[0] is not None
    assert (calls[0].images, calls[0].requests) == (4, 2)
    assert [one.waits[0].leads for one in records] == [True, False]
    assert all(one.model_server > 0 for one in records)
