"""Retries with exponential backoff and full jitter, a retry budget, and deadlines of attempts and calls."""

import logging
import math
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
    takes precedence.

    A call for many images goes on with its attempts until its `deadline`, unless `max_attempts` is 1. Without
    a deadline, it gives up once the service has answered nothing for `patience` seconds.
    """

    max_attempts: int = 3
    initial_backoff: float = 0.1
    max_backoff: float = 2.0
    patience: float = 120.0

    def backoff(self, attempt: int, error: DigitError, remaining: float) -> float | None:
        """Return the seconds to wait after `attempt` (from 1) failed with `error`, or None for no retry.

        None means: no attempt is left, the error is not retryable, or the wait would exceed the `remaining`
        seconds of the call.
        """
        # An attempt that took all of its time would take it again; many images can be sent fewer at a time.
        if attempt >= self.max_attempts or not may_pass(error) or isinstance(error, DeadlineExceededError):
            return None
        backoff = pause(self, attempt, error)
        return backoff if backoff < remaining else None


def may_pass(error: DigitError) -> bool:
    """True for an error of a service that is overloaded, restarts, or is slow for a while."""
    passing = (ConnectionFailedError, DeadlineExceededError, OverloadedError, UnavailableError)
    return isinstance(error, passing)


def pause(policy: RetryPolicy, attempt: int, error: DigitError) -> float:
    """Return the seconds to wait after an attempt (from 1) that failed: full jitter, or Retry-After."""
    # 2 ** 20 exceeds every backoff, and larger powers every float.
    longest = min(policy.max_backoff, policy.initial_backoff * 2 ** min(attempt - 1, 20))
    return max(getattr(error, "retry_after", None) or 0.0, random.uniform(0, longest))  # noqa: S311


def default_timeout() -> float:
    """Return DIGITS_TIMEOUT, or 10 seconds. Raise ValueError if it is not a timeout."""
    text = os.environ.get("DIGITS_TIMEOUT")
    try:
        return check_timeout(float(text)) if text else _DEFAULT_TIMEOUT
    except ValueError as error:
        raise ValueError(f"DIGITS_TIMEOUT must be a number of seconds, up to a day, not {text!r}") from error


class Deadline:
    """End of an attempt or a call, `seconds` after the creation of this object; None stands for no end."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def is_set(self) -> bool:
        """True if there is an end."""
        return self._seconds is not None

    @property
    def left(self) -> float:
        """Seconds left, infinite without an end."""
        return self._end - time.monotonic()

    def remaining(self) -> float:
        """Return the seconds left. Raise DeadlineExceededError if none are left."""
        remaining = self.left
        if remaining <= 0:
            raise DeadlineExceededError(f"the service did not answer within {self._seconds:g} s")
        return remaining

    def bound(self, timeout: float) -> float:
        """Return the seconds of an attempt that begins now. Raise DeadlineExceededError if none are left."""
        return min(timeout, self.remaining())


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
    """Retry loop of a client's calls for one image, within a retry budget. Thread-safe."""

    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[None]]
    budget: _RetryBudget = field(default_factory=_RetryBudget)

    def may_retry(self) -> bool:
        """Take the token of a retry from the budget; False if there is none."""
        return self.budget.add(-1)

    def succeeded(self) -> None:
        """Add the tokens of a successful call to the budget."""
        self.budget.add(TOKENS_PER_SUCCESS)

    async def run(
        self, send: Callable[[float], Awaitable[_Result]], timeout: float, deadline: Deadline
    ) -> _Result:
        """Await `send` with the seconds of an attempt until it succeeds. Raise its last error."""
        attempt = 1
        while True:
            try:
                result = await send(deadline.bound(timeout))
            except DigitError as error:
                backoff = self.policy.backoff(attempt, error, deadline.left)
                if backoff is None or not self.may_retry():
                    raise
                _logger.info("retry %d in %.2f s: %s", attempt, backoff, error)
            else:
                self.succeeded()
                return result
            await self.sleep(backoff)
            attempt += 1
