"""Trying again what may succeed the second time, within one deadline."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from digit_client.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    OverloadedError,
    UnavailableError,
)

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


def run(send: Callable[[float], _Result], policy: RetryPolicy, deadline: Deadline) -> _Result:
    """Call `send` with the seconds left until it succeeds or the policy gives up."""
    attempt = 1
    while True:
        try:
            return send(deadline.remaining())
        except DigitError as error:
            pause = policy.pause(attempt, error, deadline.remaining())
            if pause is None:
                raise
        time.sleep(pause)
        attempt += 1


async def run_async(
    send: Callable[[float], Awaitable[_Result]], policy: RetryPolicy, deadline: Deadline
) -> _Result:
    """`run` for coroutines."""
    attempt = 1
    while True:
        try:
            return await send(deadline.remaining())
        except DigitError as error:
            pause = policy.pause(attempt, error, deadline.remaining())
            if pause is None:
                raise
        await asyncio.sleep(pause)
        attempt += 1
