"""Rate limiting: sliding-window counters per caller, in the process's memory or in a store such as Redis."""

import asyncio
import ipaddress
import logging
import math
import time

from flask import Blueprint, g, request
from limits import parse_many
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from digit_serving.gateway.asgi import await_
from digit_serving.gateway.errors import RateLimitedError

_STORE_TIMEOUT_SECONDS = 0.2
"""Longest delay of a request while the store is down."""
_STORE_RETRY_SECONDS = 1.0
"""Time without limits after a failed call to the store, so that few requests have that delay."""

_log = logging.getLogger(__name__)


class RateLimiter:
    """Counts requests per caller against limits such as `10/second;1000/hour`.

    Fails open: while the store is unreachable no request is refused, because the limits protect against
    load, not against intruders. The constructor raises ValueError for malformed limits and
    limits.errors.ConfigurationError for an unknown store.
    """

    def __init__(self, limits: str, store: str) -> None:
        self._limits = parse_many(limits)
        timeouts = {
            "socket_timeout": _STORE_TIMEOUT_SECONDS,
            "socket_connect_timeout": _STORE_TIMEOUT_SECONDS,
        }
        self._limiter = SlidingWindowCounterRateLimiter(
            storage_from_string(store, **(timeouts if store.startswith("redis") else {}))
        )
        self._is_local = store.startswith("memory")
        self._next_attempt = 0.0

    def check(self, caller: str) -> None:
        """Count a request, in code that `asgi.run` calls. Raise RateLimitedError if it exceeds a limit."""
        if time.monotonic() < self._next_attempt:
            return
        try:
            if self._is_local:
                self._hit(caller)
            else:
                await_(asyncio.to_thread(self._hit, caller))
        except RateLimitedError:
            raise
        except Exception as error:
            # Each kind of store raises its own errors.
            self._next_attempt = time.monotonic() + _STORE_RETRY_SECONDS
            _log.error("rate limits are suspended for %g s: %s", _STORE_RETRY_SECONDS, error)

    def _hit(self, caller: str) -> None:
        for limit in self._limits:
            if not self._limiter.hit(limit, caller):
                reset, _ = self._limiter.get_window_stats(limit, caller)
                raise RateLimitedError(
                    f"Rate limit exceeded: {limit}.", max(1, math.ceil(reset - time.time()))
                )


def limit_rate(api: Blueprint, limits: str, store: str) -> None:
    """Limit each caller's request rate. A caller is the name of an API key, or a network if keys are off."""
    limiter = RateLimiter(limits, store)

    @api.before_request
    def check() -> None:
        limiter.check(g.context.key or network(request.remote_addr))


def network(address: str | None) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address: one customer has a whole network."""
    if not address or ":" not in address:
        return address or "unknown"
    try:
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    except ValueError:
        return address
