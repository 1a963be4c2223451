"""Concurrency of the clients: in asyncio tasks, and in threads of a blocking client.

A call for many images has as many requests in flight as its flow permits; results come as they arrive.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import aclosing, closing
from itertools import islice
from threading import Lock
from typing import Generic, TypeAlias, TypeVar

from digit_client._flow import Flow
from digit_client._outcomes import Counter, Outcomes
from digit_core.errors import ClientClosedError

_Batch = TypeVar("_Batch")
_Connection = TypeVar("_Connection")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_POLL_SECONDS = 0.1
"""Time after which requests that wait for their next attempt make way for others."""

AsyncResults: TypeAlias = AsyncGenerator[tuple[int, _Result], None]
Results: TypeAlias = Generator[tuple[int, _Result], None, None]
"""Positions of images, each with the image's result, as they come."""


def check_many(images: object, concurrency: int) -> None:
    """Raise TypeError for one image or None in place of several, ValueError for less than one request."""
    is_one = isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(images, "read")
    if is_one or not isinstance(images, Iterable):
        raise TypeError(
            f"images must be an iterable of images or an array, not one {type(images).__name__}; "
            "put it in a list, or use the method for one image"
        )
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")


async def async_send_many(
    batches: Iterable[_Batch], send: Callable[[_Batch], Awaitable[Iterable[_Item]]], flow: Flow
) -> AsyncGenerator[_Item, None]:
    """Send the batches as `send_many` does, in tasks, which the end cancels. A thread takes the batches."""
    remaining = iter(batches)
    pending: set[asyncio.Future[Iterable[_Item]]] = set()
    answered: set[asyncio.Future[Iterable[_Item]]] = set()
    try:
        while True:
            taken = await asyncio.to_thread(list, islice(remaining, flow.room(len(pending))))
            pending |= {asyncio.ensure_future(send(batch)) for batch in taken}
            if not pending:
                return
            answered, pending = await asyncio.wait(
                pending, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            for future in answered:
                for item in future.result():
                    yield item
    finally:
        flow.is_stopped = True
        for future in pending:
            future.cancel()
        # Retrieve all errors: asyncio logs those that nobody retrieves.
        await asyncio.gather(*pending, *answered, return_exceptions=True)


def send_many(
    batches: Iterable[_Batch], send: Callable[[_Batch], Iterable[_Item]], flow: Flow
) -> Generator[_Item, None, None]:
    """Send the batches in threads, as many at a time as the flow permits; yield the items of each at its end.

    A batch is taken when another one is answered, or waits for its next attempt. An error of `send` ends the
    iteration. The end stops the flow, so that no further request begins.
    """
    remaining = iter(batches)
    pending: set[Future[Iterable[_Item]]] = set()
    pool = ThreadPoolExecutor(flow.most, "digit_client")
    try:
        while True:
            taken = islice(remaining, flow.room(len(pending)))
            pending |= {pool.submit(send, batch) for batch in taken}
            if not pending:
                return
            answered, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in answered:
                yield from future.result()
    finally:
        flow.is_stopped = True
        # Don't wait for requests: the garbage collector may end the generator in a thread of the pool.
        pool.shutdown(wait=False, cancel_futures=True)


async def async_collect(results: AsyncResults[_Result], counter: Counter) -> Outcomes[_Result]:
    """Return the results by their positions."""
    found = {}
    async with aclosing(results):
        with closing(counter):
            async for index, result in results:
                found[index] = result
                counter.add()
    return Outcomes((found[index] for index in sorted(found)), counter.pictures, counter.kind)


def collect(results: Results[_Result], counter: Counter) -> Outcomes[_Result]:
    """Return the results by their positions."""
    found = {}
    with closing(results), closing(counter):
        for index, result in results:
            found[index] = result
            counter.add()
    return Outcomes((found[index] for index in sorted(found)), counter.pictures, counter.kind)


class LazyConnection(Generic[_Connection]):
    """Connection of a client and its copies, made at the first call. Thread-safe.

    An asyncio connection belongs to the running event loop. A forked process makes its own: two processes
    would mix up their answers, and gRPC's threads don't survive a fork.
    """

    def __init__(self, connect: Callable[[], _Connection], loop: Callable[[], object]) -> None:
        self._connect: Callable[[], _Connection] = connect
        self._running_loop = loop
        self._lock = Lock()
        self._connection: _Connection | None = None
        self._loop: object = None
        self._process_id = 0
        self._is_closed = False

    def get(self) -> _Connection:
        """Return the connection. Raise ClientClosedError if it is closed, or of another event loop."""
        loop, process_id = self._running_loop(), os.getpid()
        with self._lock:
            if self._is_closed:
                raise ClientClosedError("the client is closed; create another one")
            if self._connection is None or self._process_id != process_id:
                self._connection, self._loop, self._process_id = self._connect(), loop, process_id
            if loop is not self._loop:
                raise ClientClosedError(
                    "the client's connections belong to another event loop; "
                    "create a client in each asyncio.run"
                )
            return self._connection

    def end(self) -> _Connection | None:
        """End the use of the connection, and return it: the caller closes it."""
        with self._lock:
            self._is_closed = True
            connection, self._connection = self._connection, None
            return connection
