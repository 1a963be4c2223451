"""Which requests of a process wait before anything is made of them, and for how long."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

_AT_ONCE = 32  # more would empty the cache before they have their answers
_LONG_SECONDS = 0.01  # more than a call takes where the model server shares the core
_MOST_AT_HAND = 256  # whose bodies are in memory, or on their way
_LEAST_ROOM = 64  # for those who wait, however slow the pace
_LOOK_SECONDS = 0.1
_QUEUE_SECONDS = 1.0
_NEWS = 0.3  # what the last look counts for in the pace, all before it together for the rest


class _Waiting(NamedTuple):
    since: float
    go_on: Callable[[], bool]
    give_up: Callable[[], None]


class Backlog:
    """The requests of one event loop: `most` are taken on, of which some are worked on while the others wait.

    None waits for longer than `patience`, in seconds. Who would come to that is better refused at once: no
    more wait than are answered in a second, and nobody is taken on while another has waited for half of the
    patience.

    What is made of a few requests stays in the processor's cache until they have their answers, so that the
    others had better wait as the bytes that came.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._taken = 0
        self._worked_on = 0
        self._waiting: deque[_Waiting] = deque()
        self._freed = 0
        self._looks = False
        self._ended, self._counted_from = 0, 0.0
        self._pace = math.inf

    @property
    def is_full(self) -> bool:
        """Whether another request is to be refused."""
        waiting = len(self._waiting)
        return (
            self._taken + waiting >= self._most
            or self._taken >= _MOST_AT_HAND
            or waiting >= self._room
            or self._waits_longer_than(self._patience / 2)
        )

    @property
    def is_long(self) -> bool:
        """Whether another request is to wait."""
        return bool(self._waiting) or self._worked_on >= _AT_ONCE

    def take(self) -> None:
        """Take on a request, whose body may be still to come."""
        self._taken += 1

    def leave(self) -> None:
        """Have done with a request that was taken on."""
        self._taken -= 1

    def begin(self) -> None:
        """Begin to work on a request that is here as a whole."""
        self._worked_on += 1

    def end(self) -> None:
        """Have done the work, so that one of those who wait can go on."""
        self._worked_on -= 1
        self._ended += 1
        if self._waiting:
            self._freed += 1
            if self._freed == 1:
                # Once all have their answers that a call brought.
                asyncio.get_running_loop().call_soon(self._hand_over)

    @contextmanager
    def resting(self, count: int) -> Iterator[None]:
        """While nothing is to be done for so many: if that takes long, as many others go on meanwhile."""
        rests = False

        def rest() -> None:
            nonlocal rests
            rests = True
            self._worked_on -= count
            self._take_up(_AT_ONCE - self._worked_on)

        timer = asyncio.get_running_loop().call_later(_LONG_SECONDS, rest)
        try:
            yield
        finally:
            timer.cancel()
            if rests:
                self._worked_on += count

    def wait(self, go_on: Callable[[], bool], give_up: Callable[[], None]) -> None:
        """Have the first called at its turn, to tell whether there is a request still; else the other."""
        self._waiting.append(_Waiting(time.monotonic(), go_on, give_up))
        if not self._looks:
            self._looks, self._pace = True, math.inf
            self._ended, self._counted_from = 0, time.monotonic()
            self._look_soon()

    def _hand_over(self) -> None:
        freed, self._freed = self._freed, 0
        self._take_up(min(freed, _AT_ONCE - self._worked_on))

    @property
    def _room(self) -> float:
        """How many may wait."""
        return max(_LEAST_ROOM, self._pace * _QUEUE_SECONDS)

    def _look_soon(self) -> None:
        asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        while self._waits_longer_than(self._patience):
            self._waiting.popleft().give_up()
        # What a model server that hangs holds up is not to hold up what others could do.
        self._take_up(_AT_ONCE - self._worked_on if self._ended else _AT_ONCE)
        if self._ended:
            self._learn_pace()
        while len(self._waiting) > self._room:
            self._waiting.pop().give_up()
        self._looks = bool(self._waiting)
        if self._looks:
            self._look_soon()

    def _learn_pace(self) -> None:
        now = time.monotonic()
        pace = self._ended / (now - self._counted_from)
        self._pace = pace if self._pace == math.inf else self._pace + _NEWS * (pace - self._pace)
        self._ended, self._counted_from = 0, now

    def _waits_longer_than(self, seconds: float) -> bool:
        return bool(self._waiting) and time.monotonic() - self._waiting[0].since > seconds

    def _take_up(self, count: int) -> None:
        count = min(count, _MOST_AT_HAND - self._taken)
        while count > 0 and self._waiting:
            count -= self._waiting.popleft().go_on()
