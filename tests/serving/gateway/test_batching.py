"""Dynamic batching in front of a stub of AsyncConnection, and its circuit breaker, without sockets."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS
from digit_core.errors import (
    AuthenticationError,
    DeadlineExceededError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_core.results import Answer, Prediction
from digit_core.tfserving.codec import Batch, ModelRef
from digit_core.tfserving.connection import ServedVersion
from digit_serving.gateway.batching import Batcher, CircuitBreaker
from digit_serving.gateway.request import Wait
from digit_serving.gateway.settings import Settings
from tests.serving.gateway.helpers import ManualClock

MODEL = ModelRef("digits")
SERVED = ServedVersion(MODEL, 1, DIGITS, None)
LABELS = tuple("0123456789")
_Task: TypeAlias = asyncio.Task[list[Answer] | ServedVersion]


async def settle() -> None:
    """Run the event loop until the batcher has sent the waiting requests or queued them."""
    for _ in range(20):
        await asyncio.sleep(0)


def wait_of(request_id: str, timeout: float = 5.0, **options: Any) -> Wait:
    """Return a wait that begins now, and ends in `timeout` seconds."""
    now = time.monotonic()
    return Wait(request_id, now + timeout, now, **options)


def images_of(*numbers: int) -> NDArray[np.uint8]:
    """Return images whose first pixel is the digit that the stub answers."""
    batch = np.zeros((len(numbers), 28, 28), np.uint8)
    batch[:, 0, 0] = numbers
    return batch


@dataclass
class StubServer:
    """Stub of AsyncConnection: records its calls, and answers while `open` is set."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Any] = field(default_factory=list)
    """Arguments of the calls; `numbers` are the first pixels of their images."""
    answered: float = math.inf
    """Number of calls after which the server hangs."""
    error: Exception | None = None
    failures: dict[int, Exception] = field(default_factory=dict)
    """Errors of calls with an image of this number."""
    moved: ServedVersion | None = None
    """Version that answers now in place of the one that is asked."""

    async def predict(
        self,
        batch: Batch,
        served: ServedVersion,
        *,
        deadline: float,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> list[Answer] | ServedVersion:
        numbers = batch.reshape(len(batch), -1)[:, 0].astype(int).tolist()
        call = SimpleNamespace(
            served=served, numbers=numbers, request_id=request_id, deadline=deadline, trace=trace
        )
        self.calls.append(call)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await (asyncio.Event() if len(self.calls) > self.answered else self.open).wait()
        except TimeoutError:
            raise DeadlineExceededError("late") from None
        if error := next((self.failures[each] for each in numbers if each in self.failures), self.error):
            raise error
        if self.moved:
            return self.moved
        return [Prediction(number, 1.0, (), LABELS, 1) for number in numbers]

    @property
    def numbers(self) -> list[list[int]]:
        """First pixel of each image, by call."""
        return [call.numbers for call in self.calls]


class Callers:
    """Batcher of a stub, and requests to it."""

    def __init__(self, calls: int = 1, max_images: int = 256) -> None:
        self.server = StubServer()
        settings = Settings(max_inflight_calls=calls, max_images=max_images)
        self.batcher = Batcher(self.server, settings)  # type: ignore[arg-type]

    def send(
        self, *numbers: int, served: ServedVersion = SERVED, timeout: float = 5.0, request_id: str = ""
    ) -> _Task:
        wait = wait_of(request_id or "+".join(map(str, numbers)), timeout)
        return asyncio.create_task(self.batcher.predict(images_of(*numbers), served, wait))

    async def send_later(self, *numbers: int, **options: object) -> _Task:
        """Send a request, and wait until the batcher has sent or queued it."""
        task = self.send(*numbers, **options)  # type: ignore[arg-type]
        await settle()
        return task


async def digits(task: _Task) -> list[int]:
    answers = await task
    assert isinstance(answers, list)
    return [answer.index for answer in answers if isinstance(answer, Prediction)]


async def test_predict_requests_that_arrive_together_share_call() -> None:
    callers = Callers()
    callers.server.open.set()
    tasks = [callers.send(number) for number in range(8)]
    assert [await digits(task) for task in tasks] == [[number] for number in range(8)]
    assert callers.server.numbers == [list(range(8))]


async def test_predict_requests_during_call_share_next_one() -> None:
    callers = Callers()
    tasks = [await callers.send_later(*numbers) for numbers in [(0,), (1, 2), (3,), (4, 5, 6)]]
    callers.server.open.set()
    assert [await digits(task) for task in tasks] == [[0], [1, 2], [3], [4, 5, 6]]
    assert callers.server.numbers == [[0], [1, 2, 3, 4, 5, 6]]
    assert callers.server.calls[1].request_id == "1+2,3,4+5+6"


async def test_predict_calls_in_flight_are_bounded() -> None:
    callers = Callers(calls=2)
    tasks = [await callers.send_later(number) for number in range(4)]
    assert callers.server.numbers == [[0], [1]]
    callers.server.open.set()
    assert [await digits(task) for task in tasks] == [[0], [1], [2], [3]]


async def test_predict_call_holds_at_most_max_images() -> None:
    callers = Callers(max_images=3)
    requests = [(0,), (1, 1), (2, 2), (3, 3, 3, 3), (4,)]
    tasks = [await callers.send_later(*numbers) for numbers in requests]
    callers.server.open.set()
    assert [await digits(task) for task in tasks] == [list(numbers) for numbers in requests]
    assert callers.server.numbers == [[0], [1, 1], [2, 2], [3, 3, 3, 3], [4]]


async def test_predict_call_of_large_images_holds_fewer() -> None:
    callers = Callers()
    callers.server.open.set()
    large = np.zeros((1, 7 * 2**20), np.uint8)
    calls = [callers.batcher.predict(large, SERVED, wait_of(str(number))) for number in range(5)]
    assert await asyncio.gather(*calls)
    assert callers.server.numbers == [[0, 0], [0, 0], [0]]


async def test_predict_call_of_many_labels_holds_fewer() -> None:
    callers = Callers()
    callers.server.open.set()
    card = replace(DIGITS, labels=tuple(map(str, range(100_000))))
    many = ServedVersion(MODEL, 1, card, None)
    tasks = [callers.send(5, served=many) for _ in range(5)]
    assert [await digits(task) for task in tasks] == [[5]] * 5
    assert callers.server.numbers == [[5, 5], [5, 5], [5]]


async def test_predict_call_holds_no_more_request_ids_than_metadata_allows() -> None:
    callers = Callers()
    callers.server.open.set()
    tasks = [callers.send(5, request_id=f"{number:0128}") for number in range(150)]
    assert [await digits(task) for task in tasks] == [[5]] * 150
    assert max(len(call.request_id) for call in callers.server.calls) < 8000
    assert sum(map(len, callers.server.numbers)) == 150


async def test_predict_other_version_dtype_or_shape_has_call_of_its_own() -> None:
    callers = Callers()
    # The label has moved to version 2.
    others = (SERVED.pinned(7), ServedVersion(MODEL, 2, DIGITS, None))
    tasks = [await callers.send_later(number) for number in (0, 1)]
    tasks += [await callers.send_later(2, served=served) for served in others]
    for batch in (np.full((1, 784), 3, np.float32), np.full((1, 64, 48, 3), 4, np.uint8)):
        predict = callers.batcher.predict(batch, SERVED, wait_of("other"))
        tasks.append(asyncio.create_task(predict))
        await settle()
    callers.server.open.set()
    assert [await digits(task) for task in tasks] == [[0], [1], [2], [2], [3], [4]]
    assert callers.server.numbers == [[0], [2], [2], [3], [4], [1]]
    assert [call.served for call in callers.server.calls[1:3]] == [*others]


@pytest.mark.parametrize("error", [UnavailableError("no"), RuntimeError("a bug")])
async def test_predict_failed_call_raises_copy_of_error_in_each_request(error: Exception) -> None:
    callers = Callers()
    callers.server.error = error
    tasks = [await callers.send_later(number) for number in range(3)]
    callers.server.open.set()
    raised = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(copy), str(copy)) for copy in raised] == [(type(error), str(error))] * 3
    assert len(set(map(id, raised))) == 3
    assert all(copy.__dict__ == error.__dict__ for copy in raised)
    callers.server.error = None
    assert await digits(callers.send(3)) == [3]


FEWER_ROWS = ServiceError("the model server gave 3 answers for 4 images")


async def fails(task: _Task) -> Exception:
    """Return the error that a request raises."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller compares it
        await task
    return raised.value


@pytest.mark.parametrize(
    "error",
    [FEWER_ROWS, ServiceError("bad", reason="INVALID_ARGUMENT"), ServiceError("bug", reason="INTERNAL")],
)
async def test_predict_failed_shared_call_asks_again_for_each_request_alone(error: Exception) -> None:
    callers = Callers()
    callers.server.failures[3] = error
    tasks = [await callers.send_later(*numbers) for numbers in [(0,), (1, 2), (3, 4), (5,)]]
    callers.server.open.set()
    assert [await digits(task) for task in (tasks[0], tasks[1], tasks[3])] == [[0], [1, 2], [5]]
    assert str(await fails(tasks[2])) == str(error)
    assert callers.server.numbers == [[0], [1, 2, 3, 4, 5], [1, 2], [3, 4], [5]]
    assert [call.request_id for call in callers.server.calls[2:]] == ["1+2", "3+4", "5"]
    assert await digits(callers.send(6)) == [6]


async def test_predict_calls_hold_fewer_requests_after_a_failed_shared_one() -> None:
    """A caller whose picture fails every shared call costs few others a second call."""
    callers = Callers(max_images=8)
    callers.server.failures[0] = FEWER_ROWS
    callers.server.open.set()
    numbers = [1, 2, 0, 3, 4, 5, 6, 7, *(1, 0, 2, 3), *(1, 2), *(3, 4, 5), *(6, 7, 8, 9)]
    outcomes = await asyncio.gather(*(callers.send(each) for each in numbers), return_exceptions=True)
    assert [isinstance(each, ServiceError) for each in outcomes] == [each == 0 for each in numbers]
    assert [len(each) for each in callers.server.numbers] == [8, *[1] * 8, 4, *[1] * 4, 2, 3, 4]


async def test_predict_failed_call_of_one_request_is_not_asked_again() -> None:
    callers = Callers()
    callers.server.open.set()
    callers.server.failures[3] = FEWER_ROWS
    assert str(await fails(callers.send(3, 4))) == str(FEWER_ROWS)
    assert callers.server.numbers == [[3, 4]]


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("down", reason="UNAVAILABLE"),
        OverloadedError("busy", reason="RESOURCE_EXHAUSTED"),
        ModelNotFoundError("unloaded", reason="NOT_FOUND"),
        AuthenticationError("no", reason="UNAUTHENTICATED"),
        DeadlineExceededError("late"),
    ],
)
async def test_predict_error_of_no_request_is_not_asked_again(error: Exception) -> None:
    """A server that is down or busy must not get a call for each request in place of one for all."""
    callers = Callers()
    callers.server.failures = dict.fromkeys(range(1, 9), error)
    tasks = [await callers.send_later(number) for number in range(9)]
    callers.server.open.set()
    assert [str(await fails(task)) for task in tasks[1:]] == [str(error)] * 8
    assert callers.server.numbers == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]


async def test_predict_outage_while_requests_are_asked_again_ends_that() -> None:
    callers = Callers()
    tasks = [await callers.send_later(number) for number in range(9)]
    down = UnavailableError("down", reason="UNAVAILABLE")
    callers.server.failures = {1: FEWER_ROWS, **dict.fromkeys(range(3, 9), down)}
    callers.server.open.set()
    assert str(await fails(tasks[1])) == str(FEWER_ROWS)
    assert await digits(tasks[2]) == [2]
    assert [str(await fails(task)) for task in tasks[3:]] == [str(down)] * 6
    assert callers.server.numbers == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [1], [2], [3]]


async def test_predict_server_that_hangs_while_requests_are_asked_again_gets_few_calls() -> None:
    callers = Callers()
    callers.server.failures[0] = FEWER_ROWS
    callers.server.open.set()
    callers.server.answered = 1
    tasks = [callers.send(number, timeout=0.1 + 0.02 * number) for number in range(9)]
    assert {type(await fails(task)) for task in tasks} <= {DeadlineExceededError, UnavailableError}
    assert len(callers.server.calls) <= 5, "the shared one, three that open the circuit, and a trial"


async def test_predict_requests_that_ended_are_not_asked_again() -> None:
    callers = Callers()
    first = await callers.send_later(0)
    expiring, cancelled = await callers.send_later(1, timeout=0.05), await callers.send_later(2)
    other = await callers.send_later(3)
    callers.server.failures[3] = FEWER_ROWS
    callers.server.open.set()
    await digits(first)
    callers.server.open.clear()
    await settle()
    cancelled.cancel()
    assert isinstance(await fails(expiring), DeadlineExceededError)
    callers.server.open.set()
    assert str(await fails(other)) == str(FEWER_ROWS)
    assert callers.server.numbers == [[0], [1, 2, 3], [3]]


async def test_predict_for_a_version_that_moved_returns_the_other_one_to_each_request() -> None:
    callers = Callers()
    callers.server.moved = SERVED.pinned(7)
    tasks = [await callers.send_later(number) for number in range(3)]
    callers.server.open.set()
    assert await asyncio.gather(*tasks) == [SERVED.pinned(7)] * 3


async def test_predict_expired_request_leaves_others_waiting() -> None:
    callers = Callers()
    first = await callers.send_later(0, timeout=0.3)
    waiting, patient = await callers.send_later(1, timeout=0.2), await callers.send_later(2)
    sharing = callers.send(3)
    for expired in (waiting, first):
        with pytest.raises(DeadlineExceededError):
            await expired
    callers.server.open.set()
    assert [await digits(patient), await digits(sharing)] == [[2], [3]]
    assert callers.server.numbers == [[0], [2, 3]]


async def test_predict_shared_call_has_latest_deadline() -> None:
    callers = Callers()
    impatient, patient = callers.send(1, timeout=0.1), callers.send(2, timeout=4)
    with pytest.raises(DeadlineExceededError):
        await impatient
    assert 3 < callers.server.calls[0].deadline - time.monotonic() <= 4
    callers.server.open.set()
    assert await digits(patient) == [2]


async def test_predict_after_its_deadline_raises_deadline_exceeded_without_a_call() -> None:
    callers = Callers()
    with pytest.raises(DeadlineExceededError):
        await callers.send(1, timeout=-1)
    await settle()
    assert callers.server.calls == []


async def test_predict_cancelled_request_leaves_others_waiting() -> None:
    callers = Callers()
    first = await callers.send_later(0)
    waiting, sharing = await callers.send_later(1), await callers.send_later(2)
    first.cancel()
    waiting.cancel()
    await settle()
    callers.server.open.set()
    assert await digits(sharing) == [2]
    assert callers.server.numbers == [[0], [2]]


async def test_predict_shared_call_is_recorded_in_each_wait() -> None:
    callers = Callers()
    callers.server.open.set()
    waits = [wait_of(str(number), trace={"traceparent": str(number)}) for number in range(2)]
    await asyncio.gather(*(callers.batcher.predict(images_of(1, 2), SERVED, wait) for wait in waits))
    call = waits[0].call
    assert call is waits[1].call
    assert call is not None
    assert call.images == 4
    assert [wait.is_leader for wait in waits] == [True, False]
    assert callers.server.calls[0].trace == {"traceparent": "0"}, "the leader's"
    assert call.ended_at is not None
    assert call.ended_at > call.started_at


async def test_predict_request_asked_again_records_the_call_that_answered_it() -> None:
    callers = Callers()
    callers.server.open.set()
    callers.server.failures[2] = FEWER_ROWS
    waits = [wait_of(str(number), trace={"traceparent": str(number)}) for number in range(3)]
    requests = (
        callers.batcher.predict(images_of(number, 1), SERVED, wait) for number, wait in enumerate(waits)
    )
    await asyncio.gather(*requests, return_exceptions=True)
    calls = [wait.call for wait in waits if wait.call]
    assert [call.images for call in calls] == [2, 2, 2]
    assert all(wait.is_leader for wait in waits), "each has a call of its own"
    ends = [call.ended_at or math.inf for call in calls]
    begins = [call.started_at for call in calls[1:]]
    assert all(end <= begin for end, begin in zip(ends, begins, strict=False)), "one call at a time"
    assert [call.trace["traceparent"] for call in callers.server.calls] == ["0", "0", "1", "2"]


def allows(breaker: CircuitBreaker) -> bool:
    try:
        breaker.check(MODEL)
    except UnavailableError:
        return False
    return True


async def test_circuit_after_three_timeouts_opens_for_that_version_only() -> None:
    callers = Callers()
    for number in range(3):
        with pytest.raises(DeadlineExceededError):
            await callers.send(number, timeout=0.05)
    trial = callers.send(3, timeout=0.1)
    with pytest.raises(UnavailableError):
        await callers.send(4)
    with pytest.raises(DeadlineExceededError):
        await trial
    callers.server.open.set()
    assert await digits(callers.send(5, served=SERVED.pinned(2))) == [5]


def test_circuit_open_allows_one_request_in_each_interval_until_an_answer() -> None:
    clock, trials = ManualClock(), []
    breaker = CircuitBreaker(clock, retry_seconds=60)
    for outcome in (breaker.record_timeout, breaker.record_timeout, breaker.record_answer) * 2:
        outcome(MODEL)
    assert allows(breaker), "an answer between timeouts keeps it closed"
    for _ in range(3):
        breaker.record_timeout(MODEL)
    for _ in range(150):
        if allows(breaker):
            trials.append(clock.now)
            breaker.record_timeout(MODEL)
        clock.now += 1
    assert trials == [0, 60, 120]
    breaker.record_answer(MODEL)
    assert all(allows(breaker) for _ in range(5))
    for _ in range(3):
        breaker.record_timeout(MODEL)
    assert [allows(breaker), allows(breaker)] == [True, False], "the first trial of a new circuit is due"


def test_circuits_of_thousands_of_models_stay_usable() -> None:
    breaker = CircuitBreaker()
    for _ in range(3):
        breaker.record_timeout(MODEL)
    assert allows(breaker)
    for number in range(3000):
        breaker.record_timeout(ModelRef("digits", version=number))
    for _ in range(3):
        breaker.record_timeout(MODEL)
    assert [allows(breaker), allows(breaker)] == [True, False]
