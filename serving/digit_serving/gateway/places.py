"""A number of places that threads take one after the other, in the order in which they came."""

from collections import deque
from threading import Lock
from types import TracebackType


class Places:
    """A context manager inside which there are no more than so many threads at once.

    Python slows down with each thread that could go on, and what they hold falls out of the processor's
    caches. Those that wait have a lock each, so that one is woken at a time.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = Lock()
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._waiting:
                # The place goes on to who waited longest.
                self._waiting.popleft().release()
            else:
                self._free += 1
