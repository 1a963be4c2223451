"""Rate limiting: sliding-window counters per caller, in the process's memory or in a store such as Redis."""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from limits import RateLimitItem
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from digit_serving.gateway.bridge import await_
from digit_serving.gateway.errors import RateLimitedError
from digit_serving.gateway.settings import parse_limits

_STORE_TIMEOUT_SECONDS = 0.2
"""Longest delay of a request while the store is down."""
_STORE_RETRY_SECONDS = 1.0
"""Time without limits after a failed call to the store, so that few requests have that delay."""

_log = logging.getLogger(__name__)


class RateLimiter:
    """Counts requests per caller against limits such as `10/second;1000/hour`, "" for none.

    Fails open: while the store is unreachable no request is refused, because the limits protect against
    load, not against intruders. The constructor raises limits.errors.ConfigurationError for an unknown store.
    """

    def __init__(self, limits: str, store: str, on_store_failure: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        timeouts = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), _STORE_TIMEOUT_SECONDS)
        self._storage = storage_from_string(store, **(timeouts if store.startswith("redis") else {}))
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._is_local = store.startswith("memory")
        self._next_attempt = 0.0
        self._is_failing = False
        self._on_store_failure = on_store_failure

    def check(self, caller: str, own_limits: str = "") -> None:
        """Count a request, in code that `bridge.run` calls. Raise RateLimitedError if it exceeds a limit.

        The caller's own limits replace the general ones.
        """
        if limits := own_limits or self._limits:
            self._call(lambda: self._hit(caller, parse_limits(limits)))

    def is_reachable(self) -> bool:
        """True if the store answers, in code that `bridge.run` calls."""
        self._call(self._ping)
        return not self._is_failing

    def _call(self, function: Callable[[], None]) -> None:
        """Call the function, in a thread unless the store is local; suspend the limits if the store fails."""
        if self._is_local:
            function()
            return
        if time.monotonic() < self._next_attempt:
            return
        try:
            await_(asyncio.to_thread(function))
        except RateLimitedError:
            self._set_failing(None)
            raise
        except Exception as error:
            # Each kind of store raises its own errors.
            self._next_attempt = time.monotonic() + _STORE_RETRY_SECONDS
            self._set_failing(error)
            self._on_store_failure()
        else:
            self._set_failing(None)

    def _set_failing(self, error: Exception | None) -> None:
        """Log the first of several failures, and their end."""
        if error and not self._is_failing:
            _log.error("rate limits are off until DIGITS_RATE_LIMIT_STORE answers: %s", error)
        if self._is_failing and not error:
            _log.warning("rate limits apply again")
        self._is_failing = error is not None

    def _ping(self) -> None:
        if not self._storage.check():
            raise ConnectionError("the store does not answer a ping")

    def _hit(self, caller: str, limits: list[RateLimitItem]) -> None:
        for limit in limits:
            if not self._limiter.hit(limit, caller):
                reset, _ = self._limiter.get_window_stats(limit, caller)
                raise RateLimitedError(
                    f"Rate limit exceeded: {limit}.", max(1, math.ceil(reset - time.time()))
                )
