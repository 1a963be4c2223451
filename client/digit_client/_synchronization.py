"""Primitives of the asyncio clients, each with the blocking one that replaces it in the generated `_sync`."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias, TypeVar

_Result = TypeVar("_Result")

AsyncResults: TypeAlias = AsyncGenerator[tuple[int, _Result], None]
Results: TypeAlias = Generator[tuple[int, _Result], None, None]
"""Positions of images, each with the image's result, as they come."""

async_sleep = asyncio.sleep
sleep = time.sleep


async def async_run(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function that reads files or prepares images, in a thread of its own.

    The default executor has few threads, and an image's thread waits for the model server, too.
    """
    executor = ThreadPoolExecutor(1, "digit_client")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)
    finally:
        executor.shutdown(wait=False)


def run(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call the function."""
    return function(*arguments)


def async_blocking(ask: Callable[..., Awaitable[_Result]]) -> Callable[..., _Result]:
    """Return a function for threads that awaits `ask` in the running event loop."""
    loop = asyncio.get_running_loop()

    async def await_answer(*arguments: Any) -> _Result:
        return await ask(*arguments)

    def call(*arguments: Any) -> _Result:
        if loop.is_closed():
            raise CancelledError
        answer = asyncio.run_coroutine_threadsafe(await_answer(*arguments), loop)
        while not wait([answer], timeout=1).done:
            # Without this check, the thread of an abandoned call would keep the process from its end.
            if loop.is_closed():
                raise CancelledError
        return answer.result()

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
