"""Retries with exponential backoff and full jitter, a retry budget, and one deadline over all attempts."""

import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

from digit_client._options import check_timeout
from digit_core.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    DigitError,
    OverloadedError,
    UnavailableError,
)

MAX_TOKENS, REFILL_PER_SECOND, TOKENS_PER_SUCCESS = 100, 10, 0.1
"""Retry budget: capacity of the token bucket, tokens per second, and tokens per successful call."""

_DEFAULT_TIMEOUT = 10.0

_logger = logging.getLogger("digit_client")

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Number of attempts, and the backoff between them.

    `max_attempts` includes the first attempt. The backoff before the n-th retry is drawn uniformly from 0 to
    `initial_backoff` · 2ⁿ⁻¹ seconds, at most `max_backoff` (full jitter). A longer Retry-After of the service
    takes precedence. The client's `timeout`, 10 seconds by default, bounds all attempts together.
    """

    max_attempts: int = 3
    initial_backoff: float = 0.1
    max_backoff: float = 2.0

    def backoff(self, attempt: int, error: DigitError, remaining: float) -> float | None:
        """Return the seconds to wait after `attempt` (from 1) failed with `error`, or None for no retry.

        None means: no attempt is left, the error is not retryable, or the wait would exceed the `remaining`
        seconds of the deadline.
        """
        is_retryable = isinstance(error, (ConnectionFailedError, OverloadedError, UnavailableError))
        if attempt >= self.max_attempts or not is_retryable:
            return None
        retry_after = getattr(error, "retry_after", None) or 0.0
        jitter = random.uniform(0, min(self.max_backoff, self.initial_backoff * 2 ** (attempt - 1)))  # noqa: S311
        backoff = max(retry_after, jitter)
        return backoff if backoff < remaining else None


def default_timeout() -> float:
    """Return DIGITS_TIMEOUT, or 10 seconds. Raise ValueError if it is not a timeout."""
    text = os.environ.get("DIGITS_TIMEOUT")
    try:
        return check_timeout(float(text)) if text else _DEFAULT_TIMEOUT
    except ValueError as error:
        raise ValueError(f"DIGITS_TIMEOUT must be a number of seconds, up to a day, not {text!r}") from error


class Deadline:
    """End of a call, `seconds` after the creation of this object; bounds all attempts together.

    `spent` is the time, in seconds, that earlier requests of the call have waited for an answer.
    """

    def __init__(self, seconds: float, spent: float = 0.0) -> None:
        self._seconds = seconds
        self.end = time.monotonic() + seconds - spent

    def remaining(self) -> float:
        """Return the seconds left. Raise DeadlineExceededError if none are left."""
        remaining = self.end - time.monotonic()
        if remaining <= 0:
            raise DeadlineExceededError(f"the service did not answer within {self._seconds:g} s")
        return remaining


class _RetryBudget:
    """Token bucket of MAX_TOKENS, refilled by REFILL_PER_SECOND. Thread-safe.

    A retry takes one token, a successful call returns TOKENS_PER_SUCCESS. An empty bucket stops retries: they
    would multiply the load on an overloaded service.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._tokens, self._refilled_at = float(MAX_TOKENS), time.monotonic()

    def add(self, count: float) -> bool:
        """Refill the bucket and add `count` tokens. Return False and change nothing if it holds too few."""
        with self._lock:
            now = time.monotonic()
            tokens = self._tokens + REFILL_PER_SECOND * (now - self._refilled_at) + count
            if tokens < 0:
                return False
            self._tokens, self._refilled_at = min(tokens, MAX_TOKENS), now
            return True


@dataclass(frozen=True, slots=True)
class Retrier:
    """Retry loop of a client, within a retry budget. Thread-safe."""

    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[None]]
    budget: _RetryBudget = field(default_factory=_RetryBudget)

    async def run(self, send: Callable[[float], Awaitable[_Result]], deadline: Deadline) -> _Result:
        """Await `send` with the remaining seconds until it succeeds; raise its last error on giving up."""
        attempt = 1
        while True:
            try:
                result = await send(deadline.remaining())
            except DigitError as error:
                backoff = self.policy.backoff(attempt, error, deadline.end - time.monotonic())
                if backoff is None or not self.budget.add(-1):
                    raise
                _logger.info("retry %d in %.2f s: %s", attempt, backoff, error)
            else:
                self.budget.add(TOKENS_PER_SUCCESS)
                return result
            await self.sleep(backoff)
            attempt += 1
