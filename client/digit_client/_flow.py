"""Flow control of a call for many images: as many requests in flight as are answered in time, and retries."""

import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from threading import Lock
from typing import TypeVar

from digit_client._retries import Deadline, Retrier, may_pass, pause
from digit_core.errors import (
    AuthenticationError,
    ConnectionFailedError,
    DigitError,
    ModelNotFoundError,
    ReaderMissingError,
    ReadingNotSupportedError,
    ServiceError,
    UnavailableError,
)

_FIRST_LIMIT = 2
_MAX_FAILURES = 10
"""Failures of one request while others are answered: overload that halves the window down to one causes seven
at most, beginning at 128; more are the request's own fault."""
_IN_TIME, _AT_ONCE = 0.5, 0.125
"""Shares of its timeout within which an answer lets the window grow, and double."""
_POLL_SECONDS = 0.02
"""Time between two looks for a free place in a window that has been halved."""
_OF_ALL = (AuthenticationError, ModelNotFoundError, ReaderMissingError, ReadingNotSupportedError)
"""Errors that every image would meet, so that a request needs no division."""

_logger = logging.getLogger("digit_client")
_Result = TypeVar("_Result")


class Flow:
    """Congestion window (AIMD) and retries of the requests of one call. Thread-safe.

    The window begins with two requests in flight. It doubles with each window of answers that come within an
    eighth of their timeout (slow start), until it is halved for the first time; otherwise it grows by one
    with each window of answers that come within half of it. It halves after a refusal or a missed deadline,
    once for the requests that were in flight together. `ceiling` bounds it.

    A failure that may pass is repeated until the call's deadline. Without one, the call gives up if the
    service has answered nothing at all so far, or nothing for the policy's `patience`. A warning says so
    when a service that is to be waited for has not answered yet.
    """

    def __init__(self, retrier: Retrier, ceiling: int, timeout: float, deadline: Deadline) -> None:
        self._retrier, self._timeout, self._deadline = retrier, timeout, deadline
        self._lock = Lock()
        self.ceiling, self._limit, self._in_flight = ceiling, float(min(_FIRST_LIMIT, ceiling)), 0
        self._halved_at = self._answered_at = time.monotonic()
        self._is_starting = True
        self._answers = self._paused = 0
        self._error: DigitError | None = None
        """Error that has ended the call."""
        self.is_stopped = False
        """True once nobody takes the results any more: no request begins."""

    @property
    def limit(self) -> int:
        """Number of requests that may be in flight."""
        return int(self._limit)

    @property
    def most(self) -> int:
        """Largest number of requests in flight or between attempts."""
        return max(self.ceiling, 2)

    def room(self, pending: int) -> int:
        """Return the number of requests that may be begun beside those that are pending.

        One between two attempts takes no place, so that a picture that always fails does not stop others.
        """
        return max(0, min(self.limit - pending + self._paused, self.most - pending))

    async def run(
        self, send: Callable[[float], Awaitable[_Result]], is_divisible: bool = False
    ) -> _Result | None:
        """Await `send` with the seconds of an attempt, which begin when it is sent, until it succeeds.

        Raise its last error on giving up. Return None after a failure of a request that is divisible: its
        images are to be sent in smaller ones, since they may take too long together, or one may be the cause.
        """
        attempt, failures, answers = 1, 0, self._answers
        while True:
            await self._enter()
            started, error = time.monotonic(), None
            try:
                result = await send(self._deadline.bound(self._timeout))
            except DigitError as raised:
                error = raised
            finally:
                self._leave(started, error)
            if error is None:
                self._retrier.succeeded()
                return result
            if self._retrier.policy.max_attempts == 1:
                raise error
            if not may_pass(error):
                if is_divisible and isinstance(error, ServiceError) and not isinstance(error, _OF_ALL):
                    return None
                raise error
            failures, answers = failures + (self._answers > answers), self._answers
            if failures >= _MAX_FAILURES or self._gives_up(error, attempt):
                raise error
            await self._pause(attempt, error)
            if is_divisible:
                return None
            attempt += 1

    async def _enter(self) -> None:
        """Wait for a place in the window. Raise the error that has ended the call, or CancelledError."""
        while True:
            with self._lock:
                if self.is_stopped:
                    raise CancelledError
                if self._error:
                    raise self._error
                self._deadline.remaining()
                if self._in_flight < self.limit:
                    self._in_flight += 1
                    return
            await self._retrier.sleep(_POLL_SECONDS)

    def _leave(self, started: float, error: DigitError | None) -> None:
        """Free the place of a request that began at `started`, and adapt the window."""
        now = time.monotonic()
        with self._lock:
            is_used = 2 * self._in_flight > self.limit
            self._in_flight -= 1
            if error and may_pass(error):
                if started >= self._halved_at:
                    self._limit, self._halved_at = max(1.0, self._limit / 2), now
                    self._is_starting = False
                return
            self._answers, self._answered_at = self._answers + 1, now
            share = (now - started) / self._timeout
            if is_used and share <= _IN_TIME:
                step = 1.0 if self._is_starting and share <= _AT_ONCE else 1 / self._limit
                self._limit = min(float(self.ceiling), self._limit + step)

    def _gives_up(self, error: DigitError, attempt: int) -> bool:
        """Tell whether a failure that may pass is final; if all further ones would be, end the call."""
        policy = self._retrier.policy
        if self._deadline.is_set:
            return False
        is_absent = isinstance(error, (ConnectionFailedError, UnavailableError)) and error.status != 504
        is_silent = time.monotonic() - self._answered_at > policy.patience + self._timeout
        # The first answer may take longer than some failures.
        is_first = not self._answers and not self._in_flight
        if (is_absent and is_first and attempt >= policy.max_attempts) or is_silent:
            self._error = error
            return True
        return False

    async def _pause(self, attempt: int, error: DigitError) -> None:
        """Wait before the next attempt, for as long as the client's budget permits none."""
        with self._lock:
            self._paused += 1
        try:
            while True:
                policy = self._retrier.policy
                seconds = pause(policy, attempt, error)
                is_silent = attempt == policy.max_attempts and not self._answers
                level = logging.WARNING if is_silent else logging.INFO
                _logger.log(level, "attempt %d failed, retry in %.2f s: %s", attempt, seconds, error)
                await self._retrier.sleep(min(seconds, max(0.0, self._deadline.left)))
                if self._retrier.may_retry() or self._deadline.left <= 0:
                    return
        finally:
            with self._lock:
                self._paused -= 1
