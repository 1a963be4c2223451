"""Primitives of the asyncio clients, each with the blocking one that replaces it in the generated `_sync`."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

_Result = TypeVar("_Result")

async_sleep = asyncio.sleep
sleep = time.sleep


async def async_run(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function that reads files or prepares images, in a thread."""
    return await asyncio.to_thread(function, *arguments)


def run(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call the function."""
    return function(*arguments)


def async_blocking(ask: Callable[..., Awaitable[_Result]]) -> Callable[..., _Result]:
    """Return a function for threads that awaits `ask` in the running event loop."""
    loop = asyncio.get_running_loop()

    async def await_answer(*arguments: Any) -> _Result:
        return await ask(*arguments)

    def call(*arguments: Any) -> _Result:
        return asyncio.run_coroutine_threadsafe(await_answer(*arguments), loop).result()

    return call


def blocking(ask: Callable[..., _Result]) -> Callable[..., _Result]:
    """Return the function itself, which blocks already."""
    return ask


@asynccontextmanager
async def async_time_limit(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError in the block after these seconds."""
    async with asyncio.timeout(seconds):
        yield


@contextmanager
def time_limit(_seconds: float) -> Iterator[None]:
    """Leave the limit to the timeouts of the block's calls: no exception interrupts blocking code."""
    yield
