"""Sans-I/O flows: generators that yield requests, and drivers that send these, blocking or with asyncio."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import CancelledError
from functools import partial
from threading import Event
from typing import Any, TypeAlias, TypeVar

from digit_client._exceptions import DigitError

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")

Flow: TypeAlias = Generator[_Request, Any, _Result]
"""Generator that yields requests, gets the answer or the DigitError of each, and returns a result."""


def drive(
    flow: Flow[_Request, _Result], send: Callable[[_Request], Any], stopped: Event | None = None
) -> _Result:
    """Run the flow: `send` returns the answer to a request. Raise CancelledError once `stopped` is set."""
    resume: Callable[[], _Request] = partial(next, flow)
    while True:
        try:
            request = resume()
        except StopIteration as stop:
            result: _Result = stop.value
            return result
        if stopped and stopped.is_set():
            raise CancelledError
        try:
            resume = partial(flow.send, send(request))
        except DigitError as error:
            resume = partial(flow.throw, error)


async def drive_async(flow: Flow[_Request, _Result], send: Callable[[_Request], Awaitable[Any]]) -> _Result:
    """Run the flow, its steps in threads: they read files and prepare images."""

    def step() -> tuple[_Request | None, _Result | None]:
        # A StopIteration can't leave a thread.
        try:
            return resume(), None
        except StopIteration as stop:
            return None, stop.value

    resume: Callable[[], _Request] = partial(next, flow)
    while True:
        request, result = await asyncio.to_thread(step)
        if request is None:
            return result  # type: ignore[return-value]
        try:
            resume = partial(flow.send, await send(request))
        except DigitError as error:
            resume = partial(flow.throw, error)
