"""Continuous calls to a service."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

_Result = TypeVar("_Result")


@contextmanager
def load(call: Callable[[], _Result], callers: int = 4) -> Iterator[list[_Result]]:
    """Repeat a call in threads until the end of the block; yield the list of the results.

    The end of the block raises the error of a failed call, which ends its caller.
    """
    results: list[_Result] = []
    stop = Event()

    def work() -> None:
        # Pause: leave CPU time to the services under test.
        while not stop.wait(0.02):
            results.append(call())

    with ThreadPoolExecutor(callers) as pool:
        workers = [pool.submit(work) for _ in range(callers)]
        try:
            yield results
        finally:
            stop.set()
            for worker in workers:
                worker.result()
