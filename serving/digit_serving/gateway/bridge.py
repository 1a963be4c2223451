"""Greenlet bridge: synchronous code awaits coroutines, as in SQLAlchemy's asyncio extension.

`run` calls a function in a greenlet of its own; `await_`, called anywhere below it, hands a coroutine to the
event loop and suspends that greenlet alone. So Flask, which is synchronous, shares one thread with asyncio.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

_Result = TypeVar("_Result")


class _Bridged(greenlet):
    """Greenlet whose parent is the task that drives it."""


async def run(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call the function in a greenlet and await on its behalf; returns or raises as it does."""
    bridged = _Bridged(function)
    try:
        outcome = bridged.switch(*arguments)
        while not bridged.dead:
            try:
                awaited = await outcome
            except BaseException:
                outcome = bridged.throw(*sys.exc_info())
            else:
                outcome = bridged.switch(awaited)
        return outcome  # type: ignore[no-any-return]
    finally:
        # Break the reference cycle of frame, error and traceback, which keeps a request's body alive.
        del bridged


def await_(awaitable: Awaitable[_Result]) -> _Result:
    """Await from synchronous code below `run`. Raises RuntimeError elsewhere."""
    current = getcurrent()
    if not isinstance(current, _Bridged) or current.parent is None:
        raise RuntimeError("await_ works only in functions that bridge.run calls")
    return current.parent.switch(awaitable)  # type: ignore[no-any-return]
