"""Pictures take turns, so that none keeps the event loop from its connections for long."""

import asyncio
import time
from collections import deque

from greenlet import getcurrent, greenlet

_SLICE = 0.01  # seconds of work between two looks at the connections


class Turns:
    """For the greenlets of one event loop, in the order in which they come.

    Without them a hundred photographs that arrive together would be read before anything else is answered.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._waiting: deque[greenlet] = deque()

    def take(self) -> None:
        """To be called before each piece of work: returns when it is this greenlet's turn.

        In another thread than the loop's it always is.
        """
        me = getcurrent()
        if me.parent is None:
            return
        if self._began is None:
            self._begin()
        elif self._waiting or time.perf_counter() - self._began > _SLICE:
            self._waiting.append(me)
            me.parent.switch()

    def _begin(self) -> None:
        self._began = time.perf_counter()
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._began = None
        if self._waiting:
            self._begin()
            until = time.perf_counter() + _SLICE
            while self._waiting and time.perf_counter() < until:
                self._waiting.popleft().switch()
