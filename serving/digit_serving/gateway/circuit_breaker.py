"""Circuit breaker: after repeated timeouts a model gets only trial requests until it answers."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from digit_client import UnavailableError
from digit_client.tfserving.codec import ModelRef

_MAX_TIMEOUTS = 3
"""Timeouts in a row that open the circuit."""
_MAX_MODELS = 1000
"""Circuits kept in memory, since callers may name any version. Beyond this number all are discarded."""


class CircuitBreaker:
    """Opens a model's circuit after three timeouts in a row, so that further requests fail at once.

    An open circuit lets one request pass every `retry_seconds`; an answer closes it. Circuits are per model
    and version: a slow canary affects no other version. `clock` returns seconds, like time.monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, retry_seconds: float = 1.0) -> None:
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._circuits: dict[ModelRef, _CircuitState] = {}

    def check(self, model: ModelRef) -> None:
        """Raise UnavailableError if the circuit is open and no trial request is due."""
        circuit = self._circuits.get(model)
        if circuit and not circuit.allows_request(self._clock(), self._retry_seconds):
            raise UnavailableError(f"circuit open: {model} timed out {circuit.timeouts} times in a row")

    def record_timeout(self, model: ModelRef) -> None:
        """Count a request that timed out."""
        if len(self._circuits) >= _MAX_MODELS:
            self._circuits.clear()
        self._circuits.setdefault(model, _CircuitState()).timeouts += 1

    def record_answer(self, model: ModelRef) -> None:
        """Close the circuit."""
        self._circuits.pop(model, None)


@dataclass(slots=True)
class _CircuitState:
    timeouts: int = 0
    """Timeouts in a row."""
    next_trial_at: float = 0.0
    """Earliest time of the next trial request, by the breaker's clock."""

    def allows_request(self, now: float, retry_seconds: float) -> bool:
        """True if the circuit is closed or a trial request is due, the next one after `retry_seconds`."""
        if self.timeouts >= _MAX_TIMEOUTS:
            if now < self.next_trial_at:
                return False
            self.next_trial_at = now + retry_seconds
        return True
