"""Functions that wait as they would in a thread, while the event loop of their one thread goes on.

Each runs in a greenlet of its own: to await it would need Flask, which is in between, to do so as well.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

_Result = TypeVar("_Result")


class Event:
    """What threading.Event is, between greenlets of one event loop."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[greenlet] = []

    def is_set(self) -> bool:
        """Whether nobody waits for it."""
        return self._is_set

    def set(self) -> None:
        """Have those who wait go on, in the loop's next turn."""
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            asyncio.get_running_loop().call_soon(each.switch)

    def clear(self) -> None:
        """Have those wait who come from now on."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Let the loop go on until it is set, `timeout` seconds at the most; whether it was."""
        if self._is_set:
            return True
        me = getcurrent()
        self._waiting.append(me)
        if timeout is None:
            _let_go(me)
            return True
        timer = asyncio.get_running_loop().call_later(timeout, self._give_up, me)
        _let_go(me)
        timer.cancel()
        return self._is_set

    def _give_up(self, waiting: greenlet) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.switch()


class _Idle(threading.local):
    """A thread's greenlets that have nothing to do. For the stack of a new one the kernel has to be asked."""

    def __init__(self) -> None:
        self.greenlets: list[greenlet] = []


_idle = _Idle()


async def run(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """What the function returns or raises, which may wait as this module's functions do."""
    future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
    idle = _idle.greenlets
    one = idle.pop() if idle else greenlet(_work)
    one.switch(future, function, arguments)
    try:
        return await future
    finally:
        # The future holds an error that would hold it, and all that it passed, until garbage is collected.
        del future


def start(function: Callable[[], None]) -> None:
    """Have it run by itself, soon."""
    loop_itself = getcurrent()
    while loop_itself.parent:
        loop_itself = loop_itself.parent
    asyncio.get_running_loop().call_soon(greenlet(function, loop_itself).switch)


def wait_for(awaitable: Awaitable[_Result], timeout: float | None = None) -> _Result:
    """What it comes to. Raises TimeoutError after `timeout` seconds, and cancels it then."""
    task = asyncio.ensure_future(awaitable)
    done = Event()
    task.add_done_callback(lambda _: done.set())
    if not done.wait(timeout):
        task.cancel()
        raise TimeoutError("timed out")
    return task.result()


def pause() -> None:
    """Let the loop do what is due."""
    me = getcurrent()
    asyncio.get_running_loop().call_soon(me.switch)
    _let_go(me)


def sleep(seconds: float) -> None:
    """Let the loop go on for so long."""
    Event().wait(seconds)


def in_thread(threads: Executor | None, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """What the function returns or raises, which takes too long for all others to wait for it.

    Where it is called in such a thread already, it goes on there.
    """
    if getcurrent().parent is None:
        return function(*arguments)
    return wait_for(asyncio.get_running_loop().run_in_executor(threads, function, *arguments))


def _work(*job: Any) -> None:
    """Settle one future after the other."""
    me = getcurrent()
    while True:
        _settle(*job)
        # What is idle keeps nothing alive.
        del job
        _idle.greenlets.append(me)
        job = _let_go(me)


def _settle(
    future: asyncio.Future[_Result], function: Callable[..., _Result], arguments: tuple[Any, ...]
) -> None:
    try:
        result = function(*arguments)
    except BaseException as error:
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)
    finally:
        del future


def _let_go(me: greenlet) -> Any:
    if me.parent is None:
        raise RuntimeError("the event loop itself can't wait")
    return me.parent.switch()
