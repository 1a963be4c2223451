"""Trying again what may succeed the second time, within one deadline."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from digit_client._exceptions import (
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    OverloadedError,
    UnavailableError,
)

BUDGET, PER_SECOND, PER_SUCCESS = 100, 10, 0.1

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when to try again.

    `attempts` counts the first try as well. The pause before the n-th retry is drawn from 0 to
    `base` · 2ⁿ⁻¹ seconds, at most `cap`, and no shorter than the service asked for.
    """

    attempts: int = 3
    base: float = 0.1
    cap: float = 2.0

    def pause(self, attempt: int, error: DigitError, remaining: float) -> float | None:
        """Seconds to wait after the attempt (from 1) that failed with `error`, or None to give up."""
        if attempt >= self.attempts or not _is_passing(error):
            return None
        asked = getattr(error, "retry_after", None) or 0.0
        pause = max(asked, random.uniform(0, min(self.cap, self.base * 2 ** (attempt - 1))))  # noqa: S311
        return pause if pause < remaining else None


def _is_passing(error: DigitError) -> bool:
    return isinstance(error, (ConnectionFailedError, OverloadedError, UnavailableError))


class Deadline:
    """A point in time, `seconds` from now, that bounds every attempt together."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left. Raises DeadlineExceededError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError(f"no answer within {self._seconds:g} s")
        return left


class Retrier:
    """Makes the calls of one client, again where its policy has it. Threads may share it.

    A retry takes one of BUDGET tokens; PER_SECOND come back each second, and PER_SUCCESS with each call that
    succeeds. Without one the error is raised: a service that is too slow is not asked several times over.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._lock = Lock()
        self._tokens, self._counted = float(BUDGET), time.monotonic()

    def run(self, send: Callable[[float], _Result], deadline: Deadline) -> _Result:
        """Call `send` with the seconds left until it succeeds or there is no point in another try."""
        attempt = 1
        while True:
            try:
                result = send(deadline.remaining())
            except DigitError as error:
                pause = self._pause(attempt, error, deadline)
                if pause is None:
                    raise
            else:
                self._add(PER_SUCCESS)
                return result
            time.sleep(pause)
            attempt += 1

    async def run_async(self, send: Callable[[float], Awaitable[_Result]], deadline: Deadline) -> _Result:
        """`run` for coroutines."""
        attempt = 1
        while True:
            try:
                result = await send(deadline.remaining())
            except DigitError as error:
                pause = self._pause(attempt, error, deadline)
                if pause is None:
                    raise
            else:
                self._add(PER_SUCCESS)
                return result
            await asyncio.sleep(pause)
            attempt += 1

    def _pause(self, attempt: int, error: DigitError, deadline: Deadline) -> float | None:
        pause = self._policy.pause(attempt, error, deadline.remaining())
        return pause if pause is not None and self._add(-1) else None

    def _add(self, tokens: float) -> bool:
        """Whether it could be done: there are never fewer than none."""
        with self._lock:
            now = time.monotonic()
            left = self._tokens + PER_SECOND * (now - self._counted) + tokens
            if left < 0:
                return False
            self._tokens, self._counted = min(left, BUDGET), now
            return True
