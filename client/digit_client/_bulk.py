"""Many images in bounded memory: a window of concurrent requests, whose results come as they arrive."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from threading import Event
from typing import Literal, TypeAlias, TypeVar, get_args

OnError: TypeAlias = Literal["raise", "return"]
"""What a call for many images does with a failed one: raise its error, or return it in the image's place."""

_Batch = TypeVar("_Batch")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def check(images: object, on_error: OnError, concurrency: int) -> None:
    """Raise TypeError for one image in place of several, ValueError for other arguments out of range."""
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(images, "read"):
        raise TypeError(
            f"images are an iterable of images or an array, not one {type(images).__name__}; "
            "put it in a list, or use the method for one image"
        )
    if on_error not in get_args(OnError):
        raise ValueError(f'on_error is "raise" or "return", not {on_error!r}')
    if concurrency < 1:
        raise ValueError(f"concurrency is at least 1, not {concurrency}")


def run(
    batches: Iterable[_Batch], send: Callable[[_Batch, Event], Iterable[_Item]], concurrency: int
) -> Generator[_Item, None, None]:
    """Send the batches, `concurrency` at a time in threads; yield the items of each as it is answered.

    At most 2 · `concurrency` batches are in memory: a batch is taken when another one is answered. An error
    of `send` ends the iteration. The end sets the event that `send` gets, to be checked before each request.
    """
    stopped = Event()
    remaining = iter(batches)
    pending: set[Future[Iterable[_Item]]] = set()
    pool = ThreadPoolExecutor(concurrency, "digit_client")
    try:
        while True:
            taken = islice(remaining, concurrency - len(pending))
            pending |= {pool.submit(send, batch, stopped) for batch in taken}
            if not pending:
                return
            answered, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in answered:
                yield from future.result()
    finally:
        stopped.set()
        # Without waiting for requests in flight: the garbage collector may end the generator in a thread of
        # the pool.
        pool.shutdown(wait=False, cancel_futures=True)


async def run_async(
    batches: Iterable[_Batch], send: Callable[[_Batch], Awaitable[Iterable[_Item]]], concurrency: int
) -> AsyncGenerator[_Item, None]:
    """Send each batch as `run` does, in tasks, which the end cancels. Batches are taken in a thread."""
    remaining = iter(batches)
    pending: set[asyncio.Future[Iterable[_Item]]] = set()
    answered: set[asyncio.Future[Iterable[_Item]]] = set()
    try:
        while True:
            taken = await asyncio.to_thread(list, islice(remaining, concurrency - len(pending)))
            pending |= {asyncio.ensure_future(send(batch)) for batch in taken}
            if not pending:
                return
            answered, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in answered:
                for item in future.result():
                    yield item
    finally:
        for future in pending:
            future.cancel()
        # Retrieve all errors: asyncio logs those that nobody retrieves.
        await asyncio.gather(*pending, *answered, return_exceptions=True)


def in_order(results: Iterable[tuple[int, _Result]]) -> list[_Result]:
    """Return the results of all images by their positions."""
    return [result for _, result in sorted(results, key=lambda indexed: indexed[0])]
