"""Greenlet bridge: awaiting from synchronous functions."""

import asyncio
import gc
import weakref

import pytest

from digit_serving.gateway import bridge
from digit_serving.gateway.bridge import await_


async def test_run_cancelled_task_raises_in_function() -> None:
    seen: list[BaseException] = []

    def function() -> None:
        try:
            await_(asyncio.sleep(60))
        except asyncio.CancelledError as error:
            seen.append(error)
            raise

    task = asyncio.create_task(bridge.run(function))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(seen) == 1


async def test_await_outside_run_raises_runtime_error() -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=r"only in functions that bridge\.run calls"):
        await_(coroutine)
    coroutine.close()


async def test_run_caught_error_leaves_no_reference_cycle() -> None:
    class Body:
        pass

    references: list[weakref.ref[Body]] = []

    def function() -> None:
        body = Body()
        references.append(weakref.ref(body))
        await_(asyncio.sleep(0))
        raise LookupError

    gc.disable()
    try:
        with pytest.raises(LookupError):
            await bridge.run(function)
        await asyncio.sleep(0)
        assert references[0]() is None
    finally:
        gc.enable()
