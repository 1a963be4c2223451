"""Backends of coroutines, asyncio and blocking: code that waits is written once, for both.

A coroutine of the blocking backend never has to wait when it awaits, so that `run` needs no event loop.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Backend:
    """Functions in which asyncio and blocking code differ."""

    awaitable: Callable[[Callable[..., Any]], Callable[..., Awaitable[Any]]]
    """Wraps a library's function, an asyncio or a blocking one, so that it can be awaited."""
    sleep: Callable[[float], Awaitable[None]]
    to_thread: Callable[..., Awaitable[Any]]
    """Calls a function that reads files or computes for long, with asyncio in a thread."""
    loop: Callable[[], object]
    """Returns the running event loop; None without one."""


def run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of a coroutine of the blocking backend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    raise RuntimeError("a blocking coroutine waits for an event loop")


async def _call(function: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
    return function(*arguments, **options)


ASYNCIO = Backend(lambda function: function, asyncio.sleep, asyncio.to_thread, asyncio.get_running_loop)
BLOCKING = Backend(lambda function: partial(_call, function), partial(_call, time.sleep), _call, lambda: None)
