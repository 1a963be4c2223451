"""What waits like a thread, in an event loop."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from greenlet import getcurrent

from digit_serving import greenlets
from tests import loop


class Thing:
    pass


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_a_function_returns_and_raises_as_it_would_elsewhere() -> None:
    assert loop.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        loop.call(divmod, 7, 0)


def test_a_greenlet_is_used_again() -> None:
    first = loop.call(getcurrent)
    with pytest.raises(ZeroDivisionError):
        loop.call(divmod, 7, 0)
    assert loop.call(getcurrent) is first


def test_the_loop_goes_on_while_one_waits() -> None:
    with ThreadPoolExecutor(50) as threads:
        started = time.monotonic()
        list(threads.map(lambda _: loop.call(greenlets.sleep, 0.2), range(50)))
    assert 0.2 <= time.monotonic() - started < 1


def test_all_who_wait_go_on_when_the_event_is_set() -> None:
    event = greenlets.Event()
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(loop.call, event.wait, patience) for patience in (None, 5, 0.05)]
        assert waiting[2].result() is False
        loop.call(event.set)
        assert [waiting[0].result(), waiting[1].result()] == [True, True]
    assert loop.call(event.wait, 0)
    event.clear()
    assert not loop.call(event.wait, 0.01)


def test_what_it_waits_for_is_cancelled_after_its_time() -> None:
    cancelled = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        loop.call(lambda: greenlets.wait_for(forever(), 0.05))
    assert cancelled.wait(5)


def test_what_takes_long_is_done_in_another_thread_once() -> None:
    def names() -> tuple[str, str]:
        here = threading.current_thread().name
        return here, greenlets.in_thread(None, lambda: threading.current_thread().name)

    with ThreadPoolExecutor(1, "large") as pool:
        assert loop.call(greenlets.in_thread, pool, names) == ("large_0", "large_0")


def test_one_may_run_by_itself() -> None:
    done = threading.Event()
    loop.call(greenlets.start, done.set)
    assert done.wait(5)


def test_the_loop_itself_can_not_wait() -> None:
    async def wait() -> None:
        greenlets.sleep(1)

    with pytest.raises(RuntimeError, match="loop itself"):
        loop.call(lambda: greenlets.wait_for(wait()))


@pytest.mark.usefixtures("uncollected")
def test_an_error_keeps_nothing_alive_once_it_is_told() -> None:
    things: list[weakref.ref[Thing]] = []

    def fail() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        raise ValueError

    async def is_freed() -> bool:
        with suppress(ValueError):
            await greenlets.run(fail)
        return things.pop()() is None

    assert loop.call(greenlets.wait_for, is_freed())
