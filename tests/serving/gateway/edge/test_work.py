"""Work on pictures: the deadline of pictures, and their share of the event loop."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_core.errors import DeadlineExceededError, OverloadedError
from digit_core.images import to_png
from digit_core.recognition import Compute, Prepare
from digit_serving.gateway import bridge
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.request import RequestContext
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.serving.gateway.helpers import request_context

PREPARED = replace(DIGITS, labels=tuple("ABCDEFGHIJ"))
"""Task whose pictures are brought into the model's form: no reader looks at them."""
IMAGE = np.pad(np.eye(20, dtype=np.uint8) * 255, 4)
PNG = to_png(IMAGE)
LARGE = np.pad(np.kron(IMAGE, np.ones((36, 36), np.uint8)), 50)
OFF_CENTRE = np.pad(np.eye(10, dtype=np.uint8) * 255, ((2, 16), (2, 16)))


def prepare(
    *pictures: bytes | NDArray[np.uint8],
    waited: float = 0.0,
    task: TaskCard | None = PREPARED,
    context: RequestContext | None = None,
) -> list[Any]:
    """Prepare pictures of a request that arrived `waited` seconds ago; deadline 60 s, queue time 30 s."""
    work = Work(Settings(deadline=60))
    context = context or request_context(waited=waited)
    return [greenlet_loop.call(work.answer, context, Prepare(picture, task)) for picture in pictures]


@pytest.mark.parametrize("picture", [to_png(LARGE), LARGE], ids=["file", "array"])
@pytest.mark.parametrize("task", [None, PREPARED], ids=["page", "input"])
def test_prepare_first_large_picture_after_queue_time_raises_overloaded(
    picture: Any, task: TaskCard | None
) -> None:
    assert prepare(picture, waited=20, task=task)
    with pytest.raises(OverloadedError):
        prepare(picture, waited=40, task=task)


@pytest.mark.parametrize("task", [None, PREPARED], ids=["page", "input"])
def test_prepare_later_large_picture_may_wait_until_deadline(task: TaskCard | None) -> None:
    with pytest.raises(OverloadedError):
        prepare(LARGE, waited=50, task=task)
    for waited, error in ((40, None), (70, DeadlineExceededError)):
        context = request_context(waited=waited)
        context.decode_started_at = time.monotonic()
        with pytest.raises(error) if error else nullcontext():
            prepare(LARGE, task=task, context=context)


def test_run_costly_work_leaves_the_thread_of_the_loop() -> None:
    work, context = Work(Settings()), request_context()
    threads = [
        greenlet_loop.call(work.run, context, cost, threading.current_thread) for cost in (10**6, 10**6 + 1)
    ]
    assert threads == [greenlet_loop.call(threading.current_thread), threads[1]]
    assert threads[0] != threads[1]


def test_answer_page_with_many_peaks_is_read_in_the_thread() -> None:
    work, context = Work(Settings()), request_context()
    threads = {
        cost: greenlet_loop.call(work.answer, context, Compute(threading.current_thread, cost))
        for cost in (1, 10**7)
    }
    assert threads[1] != threads[10**7]


def test_run_in_thread_behind_long_calls_is_refused_at_once() -> None:
    work, end = Work(Settings(deadline=2)), threading.Event()

    def call() -> None:
        work.run_in_thread(request_context(deadline=2), end.wait, 0.6)

    async def flood() -> list[asyncio.Task[None]]:
        calls = [asyncio.create_task(bridge.run(call)) for _ in range(6)]
        await asyncio.sleep(0)
        refused = [call for call in calls if call.done()]
        end.set()
        await asyncio.wait(calls)
        return refused

    # The first call shows how long they take.
    greenlet_loop.call(call)
    refused = greenlet_loop.run(flood())
    assert 4 <= len(refused) <= 5
    assert all(isinstance(call.exception(), OverloadedError) for call in refused)


def test_run_in_thread_callers_take_turns() -> None:
    work, end, order = Work(Settings()), threading.Event(), list[str]()

    def call(key: str) -> None:
        context = request_context()
        context.key = key

        def job() -> None:
            end.wait(5)
            order.append(key)

        work.run_in_thread(context, job)

    async def ask() -> None:
        calls = [asyncio.create_task(bridge.run(partial(call, key))) for key in "aaaaaabbc"]
        await asyncio.sleep(0)
        end.set()
        await asyncio.gather(*calls)

    greenlet_loop.run(ask())
    assert "".join(order) == "aabcabaaa"


def test_run_in_thread_behind_many_calls_of_another_caller_is_not_refused() -> None:
    work = Work(Settings(deadline=2))

    def call(key: str) -> bool:
        context = request_context(deadline=2)
        context.key = key
        return work.run_in_thread(context, threading.Event().wait, 0.3)

    async def ask() -> list[Any]:
        calls = (bridge.run(partial(call, key)) for key in "aaaaaaaaaaab")
        return await asyncio.gather(*calls, return_exceptions=True)

    greenlet_loop.call(call, "a")
    *answers, other = greenlet_loop.run(ask())
    assert any(isinstance(answer, OverloadedError) for answer in answers)
    assert other is False


def test_run_in_thread_during_an_endless_call_ends_in_time() -> None:
    work, end = Work(Settings(deadline=1)), threading.Event()

    def call() -> None:
        work.run_in_thread(request_context(deadline=1), end.wait)

    async def ask() -> Any:
        return await asyncio.gather(bridge.run(call), bridge.run(call), return_exceptions=True)

    try:
        running, queued = greenlet_loop.run(ask())
    finally:
        end.set()
    assert isinstance(running, DeadlineExceededError)
    assert isinstance(queued, OverloadedError)


@pytest.mark.parametrize("picture", [OFF_CENTRE, to_png(OFF_CENTRE)], ids=["arrays", "files"])
def test_prepare_many_pictures_yields_to_event_loop(picture: Any) -> None:
    work, context, request = Work(Settings()), request_context(), Prepare(picture, PREPARED)
    # Normalising a diagonal off the centre takes some 0.2 ms.
    assert iterations_beside(lambda: [work.answer(context, request) for _ in range(200)]) >= 2


def iterations_beside(function: Callable[[], object]) -> int:
    """Return the number of iterations of the event loop during a function that `bridge.run` calls."""

    async def count() -> int:
        call, iterations = asyncio.create_task(bridge.run(function)), 0
        while not call.done():
            await asyncio.sleep(0)
            iterations += 1
        await call
        return iterations

    return greenlet_loop.run(count())
