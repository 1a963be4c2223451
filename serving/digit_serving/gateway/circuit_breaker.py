"""Circuit breaker: a model that lets requests run out of time is asked once a second until it answers."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from digit_client import UnavailableError
from digit_client.tfserving.codec import ModelRef

_MAX_TIMEOUTS = 3
_RETRY_SECONDS = 1.0
# Callers may name any model.
_MAX_MODELS = 1000


class CircuitBreaker:
    """Opens the circuit of a model after three timeouts in a row, so that callers hear at once.

    An open circuit lets one request a second pass; an answer closes it. Circuits are per model and version:
    a slow canary stops nobody but itself. `clock` gives seconds, like time.monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: dict[ModelRef, _CircuitState] = {}

    def check(self, model: ModelRef) -> None:
        """Raises UnavailableError where the circuit is open and this is not the request that may pass."""
        circuit = self._circuits.get(model)
        if circuit and not circuit.allows_request(self._clock()):
            raise UnavailableError(f"{model} has kept no deadline lately")

    def record_timeout(self, model: ModelRef) -> None:
        """Count a request that ran out of time."""
        if len(self._circuits) >= _MAX_MODELS:
            self._circuits.clear()
        self._circuits.setdefault(model, _CircuitState()).timeouts += 1

    def record_answer(self, model: ModelRef) -> None:
        """Close the circuit."""
        self._circuits.pop(model, None)


@dataclass(slots=True)
class _CircuitState:
    timeouts: int = 0
    """In a row."""
    next_attempt: float = 0.0

    def allows_request(self, now: float) -> bool:
        if self.timeouts >= _MAX_TIMEOUTS:
            if now < self.next_attempt:
                return False
            self.next_attempt = now + _RETRY_SECONDS
        return True
