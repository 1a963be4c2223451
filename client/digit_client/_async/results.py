"""Collection of the results of a call for many images."""

from contextlib import aclosing
from typing import TypeVar

from digit_client import _bulk
from digit_client._bulk import OnError
from digit_client._synchronization import AsyncResults

_Result = TypeVar("_Result")


async def collect(results: AsyncResults[_Result], on_error: OnError) -> list[_Result]:
    """Return the results by their positions. Raise the first error that takes no picture's place, ValueError
    for an unknown `on_error`.
    """
    _bulk.check_on_error(on_error)
    collected = []
    async with aclosing(results):
        async for index, result in results:
            _bulk.raise_if_fatal(result, on_error)
            collected.append((index, result))
    return _bulk.in_order(collected)
