"""Drivers of sans-I/O flows: answers and errors reach the flow, and its own errors the caller."""

import asyncio
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest

from digit_client import DigitError, _flows
from digit_client._flows import Flow


def adding_flow(count: int) -> Flow[int, int]:
    """Request the numbers below `count`, and return the sum of the answers; a refused one counts as 1000."""
    total = 0
    for number in range(count):
        try:
            total += yield number
        except DigitError:
            total += 1000
    if total == 0:
        raise LookupError("nothing to add")
    return total


def answer(number: int) -> int:
    if number == 2:
        raise DigitError("no twos")
    return 10 * number


@pytest.fixture(params=["blocking", "asyncio"])
def drive(request: pytest.FixtureRequest) -> Any:
    if request.param == "blocking":
        return lambda flow: _flows.drive(flow, answer)

    async def answer_async(number: int) -> int:
        return answer(number)

    return lambda flow: asyncio.run(_flows.drive_async(flow, answer_async))


def test_drive_passes_answers_and_errors_to_flow(drive: Any) -> None:
    assert drive(adding_flow(4)) == 0 + 10 + 1000 + 30


def test_drive_error_of_flow_is_raised(drive: Any) -> None:
    with pytest.raises(LookupError, match="nothing to add"):
        drive(adding_flow(0))


def test_drive_stopped_sends_no_more_requests() -> None:
    stopped, sent = threading.Event(), []

    def send(number: int) -> int:
        sent.append(number)
        stopped.set()
        return number

    with pytest.raises(CancelledError):
        _flows.drive(adding_flow(4), send, stopped)
    assert sent == [0]


def test_drive_unhandled_error_of_request_is_raised(drive: Any) -> None:
    def flow() -> Flow[int, None]:
        yield 2

    with pytest.raises(DigitError, match="no twos"):
        drive(flow())


async def test_drive_async_runs_steps_outside_the_event_loops_thread() -> None:
    def flow() -> Flow[int, list[int]]:
        first = threading.get_ident()
        yield 1
        return [first, threading.get_ident()]

    async def answer_async(number: int) -> int:
        return number

    assert threading.get_ident() not in await _flows.drive_async(flow(), answer_async)
