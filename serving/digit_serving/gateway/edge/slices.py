"""Cooperative scheduling: an iteration of the event loop works for 10 ms, so that probes get answers."""

import asyncio
import time
from collections import deque

SLICE_SECONDS = 0.01
"""Work of all requests together in an iteration, after which further work waits for another one."""


class Slices:
    """Slices of an event loop's iterations, which requests take first come, first served."""

    def __init__(self) -> None:
        self._began: float | None = None
        """Start of the first work in this iteration."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Return True if this iteration has time left, from its first work on."""
        if self._began is None:
            self._began = time.monotonic()
            asyncio.get_running_loop().call_soon(self._end)
        return time.monotonic() - self._began <= SLICE_SECONDS

    async def wait(self, latest: float) -> bool:
        """Wait for a turn, if others wait or the slice is used. Return False after `latest`, by monotonic."""
        if self._waiting or not self.take():
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake_next()
                raise
            if time.monotonic() > latest:
                self._wake_next()
                return False
            self.take()
        return True

    def _end(self) -> None:
        self._began = None
        self._wake_next()

    def _wake_next(self) -> None:
        """Let the next waiting request that has not been cancelled start."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
