"""Whose turn it is."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from digit_serving.gateway import backlog as module
from digit_serving.gateway.backlog import Backlog

AT_ONCE, AT_HAND = 32, 256


def busy(most: int = 1000, patience: float = 60.0) -> Backlog:
    """One that has as much to do as it may at once."""
    backlog = Backlog(most, patience)
    for _ in range(AT_ONCE):
        assert not backlog.is_long
        backlog.take()
        backlog.begin()
    assert backlog.is_long
    return backlog


async def end(backlog: Backlog, count: int = 1) -> None:
    for _ in range(count):
        backlog.end()
        backlog.leave()
    await asyncio.sleep(0)


async def until_more_than(count: int, called: list[int]) -> None:
    async with asyncio.timeout(5):
        while len(called) <= count:
            await asyncio.sleep(0)


def never() -> None:
    raise AssertionError("has waited for too long")


def caller(called: list[int], number: int, backlog: Backlog, works: bool = True) -> Callable[[], bool]:
    """What notes that it is called, and then begins some work or has gone away."""

    def go_on() -> bool:
        called.append(number)
        if works:
            backlog.take()
            backlog.begin()
        return works

    return go_on


def promise(called: list[int]) -> bool:
    """Go on as a request does whose body is still to come."""
    called.append(1)
    return True


def test_for_each_that_ends_the_first_of_those_who_wait_goes_on() -> None:
    async def scenario() -> None:
        backlog, called = busy(), list[int]()
        for number in range(3):
            backlog.wait(caller(called, number, backlog), never)
        assert called == []
        await end(backlog)
        assert called == [0]
        await end(backlog, 2)
        assert called == [0, 1, 2]
        await end(backlog)
        assert not backlog.is_long

    asyncio.run(scenario())


def test_nobody_goes_before_those_who_wait() -> None:
    async def scenario() -> None:
        backlog, called = busy(), list[int]()
        for number in range(2):
            backlog.wait(caller(called, number, backlog, works=False), never)
        assert backlog.is_long
        await end(backlog)
        assert called == [0, 1], "who has gone away takes nobody's turn"
        assert not backlog.is_long

    asyncio.run(scenario())


def test_those_who_wait_are_taken_on_as_well() -> None:
    async def scenario() -> None:
        backlog = busy(AT_ONCE + 2)
        for _ in range(2):
            assert not backlog.is_full
            backlog.wait(lambda: False, never)
        assert backlog.is_full
        await end(backlog)
        assert not backlog.is_full

    asyncio.run(scenario())


def test_nobody_is_taken_on_who_would_wait_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 60)

    async def scenario() -> None:
        backlog, called = busy(patience=1), list[int]()
        backlog.wait(caller(called, 0, backlog), never)
        assert not backlog.is_full
        began = time.monotonic()
        async with asyncio.timeout(5):
            while not backlog.is_full:
                await asyncio.sleep(0)
        assert time.monotonic() - began > 0.4
        await end(backlog)
        assert called == [0]
        assert not backlog.is_full

    asyncio.run(scenario())


def test_where_nothing_ends_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)

    async def scenario() -> None:
        backlog, called = busy(), list[int]()
        count = 2 * AT_ONCE + 1
        for number in range(count):
            backlog.wait(caller(called, number, backlog), never)
        await until_more_than(0, called)
        assert len(called) == AT_ONCE
        await until_more_than(2 * AT_ONCE, called)
        assert called == list(range(count))

    asyncio.run(scenario())


def test_turns_that_came_to_nothing_are_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)

    async def scenario() -> None:
        backlog, called = busy(), list[int]()
        for _ in range(AT_ONCE):
            backlog.wait(partial(promise, called), never)
        await end(backlog, 10)
        assert len(called) == 10
        await until_more_than(10, called)
        assert len(called) == 20

    asyncio.run(scenario())


def test_while_a_call_takes_long_others_go_on_in_place_of_those_who_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 60)

    async def scenario() -> None:
        backlog, called = busy(), list[int]()
        for number in range(AT_ONCE):
            backlog.wait(caller(called, number, backlog), never)
        with backlog.resting(20):
            await until_more_than(19, called)
            assert called == [*range(20)]
        await end(backlog, 20)
        assert called == [*range(20)], "there is to be done for the twenty again"
        await end(backlog)
        assert called == [*range(21)]

    asyncio.run(scenario())


def test_while_a_call_is_short_nobody_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 60)

    async def scenario() -> None:
        backlog, called = busy(), list[int]()
        backlog.wait(caller(called, 0, backlog), never)
        with backlog.resting(20):
            pass
        await asyncio.sleep(0.05)
        assert called == []

    asyncio.run(scenario())


def test_no_more_wait_than_are_answered_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)

    async def scenario() -> None:
        backlog, called, gave_up = busy(), list[int](), list[int]()

        def come(number: int) -> None:
            backlog.wait(caller(called, number, backlog), partial(gave_up.append, number))

        for number in range(200):
            assert not backlog.is_full, "of a burst all may wait, until it is seen how long they take"
            come(number)
        await end(backlog, 10)
        # At fifty a second, or fewer, 64 wait.
        await until_more_than(125, gave_up)
        assert called == [*range(10)]
        assert gave_up == [*range(199, 73, -1)], "who came last"
        assert backlog.is_full
        await end(backlog)
        assert not backlog.is_full
        for _ in range(63):
            await end(backlog)
        assert not backlog.is_full
        come(200)
        await end(backlog)
        assert called == [*range(74), 200]
        assert len(gave_up) == 126

    asyncio.run(scenario())


def test_all_wait_who_are_answered_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(module, "_QUEUE_SECONDS", 60)

    async def scenario() -> None:
        backlog, called = busy(), list[int]()
        for _ in range(200):
            backlog.wait(partial(promise, called), never)
        await end(backlog, 10)
        # At the look.
        await until_more_than(10, called)
        assert len(called) == 20
        assert not backlog.is_full

    asyncio.run(scenario())


def test_no_more_bodies_are_in_memory_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)

    async def scenario() -> None:
        backlog, called = busy(), list[int]()
        for _ in range(AT_HAND - AT_ONCE - 3):
            assert not backlog.is_full
            backlog.take()
        for number in range(10):
            backlog.wait(caller(called, number, backlog), never)
        await until_more_than(2, called)
        assert called == [0, 1, 2]
        assert backlog.is_full

    asyncio.run(scenario())


def test_who_has_waited_for_too_long_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)

    async def scenario() -> None:
        backlog, called, gave_up = busy(patience=0.1), list[int](), list[int]()
        for number in range(2):
            backlog.wait(caller(called, number, backlog), partial(gave_up.append, number))
        await until_more_than(1, gave_up)
        assert gave_up == [0, 1]
        assert called == []
        # Whoever comes now has not.
        backlog.wait(caller(called, 2, backlog), never)
        await end(backlog)
        assert called == [2]

    asyncio.run(scenario())
