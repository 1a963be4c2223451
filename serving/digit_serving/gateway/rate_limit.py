"""How often a caller may ask."""

import asyncio
import ipaddress
import logging
import math
import time

from limits import parse_many
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from digit_serving.gateway.asgi import await_
from digit_serving.gateway.errors import RateLimitedError

# A store that is away must not hold requests up, nor be asked for each of them.
_STORE_SECONDS = 0.2
_PAUSE = 1.0

_log = logging.getLogger(__name__)


class RateLimiter:
    """Counts each caller's requests, in the memory of this process or in a store such as Redis.

    While the store is away nobody is refused: it guards the service against too much, not against strangers.
    Raises ValueError where the limits are none.
    """

    def __init__(self, limits: str, store: str) -> None:
        self._limits = parse_many(limits)
        patience = {"socket_timeout": _STORE_SECONDS, "socket_connect_timeout": _STORE_SECONDS}
        self._limiter = SlidingWindowCounterRateLimiter(
            storage_from_string(store, **(patience if store.startswith("redis") else {}))
        )
        self._is_here = store.startswith("memory")
        self._asks_again = 0.0

    def check(self, caller: str) -> None:
        """Count a request. Raises RateLimitedError where there were too many before it."""
        if time.monotonic() < self._asks_again:
            return
        try:
            if self._is_here:
                self._count(caller)
            else:
                await_(asyncio.to_thread(self._count, caller))
        except RateLimitedError:
            raise
        except Exception as error:
            # Each kind of store has errors of its own.
            self._asks_again = time.monotonic() + _PAUSE
            _log.error("nobody's rate is limited for a second: %s", error)

    def _count(self, caller: str) -> None:
        for limit in self._limits:
            if not self._limiter.hit(limit, caller):
                reset, _ = self._limiter.get_window_stats(limit, caller)
                raise RateLimitedError(f"There may be {limit}.", max(1, math.ceil(reset - time.time())))


def network(address: str | None) -> str:
    """Whom an address stands for: itself, or the 2⁶⁴ that one IPv6 customer has."""
    if not address or ":" not in address:
        return address or "unknown"
    try:
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    except ValueError:
        return address
