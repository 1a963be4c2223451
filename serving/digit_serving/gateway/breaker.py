"""When a model is asked no more, since it keeps nobody's deadline."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from digit_client.errors import DeadlineExceededError, UnavailableError
from digit_client.wire import ModelRef

_Answer = TypeVar("_Answer")

_FAILURES = 3
_PAUSE_SECONDS = 1.0
# Callers may name any model.
_MOST_MODELS = 1000


class Breaker:
    """Lets calls through, unless the last three of the same model ran into their deadlines.

    Callers then hear at once what they would have waited for. A call a second is let through all the same;
    as soon as one ends otherwise, all are. A canary that is slow stops nobody but itself.
    """

    def __init__(self) -> None:
        self._troubles: dict[ModelRef, _Trouble] = {}

    def call(self, model: ModelRef, ask: Callable[[], _Answer]) -> _Answer:
        """The answer to a call, in place of which it may raise UnavailableError. Threads may share it."""
        trouble = self._troubles.get(model)
        if trouble and not trouble.lets_through(time.monotonic()):
            raise UnavailableError(f"{model} has kept no deadline lately")
        try:
            answer = ask()
        except DeadlineExceededError:
            self._troubled(model).failures += 1
            raise
        except BaseException:
            self._troubles.pop(model, None)
            raise
        if trouble:
            self._troubles.pop(model, None)
        return answer

    def _troubled(self, model: ModelRef) -> "_Trouble":
        if len(self._troubles) >= _MOST_MODELS:
            self._troubles.clear()
        return self._troubles.setdefault(model, _Trouble())


@dataclass(slots=True)
class _Trouble:
    """How often in a row a model kept no deadline, and when it may be asked again."""

    failures: int = 0
    next_try: float = 0.0

    def lets_through(self, now: float) -> bool:
        if self.failures >= _FAILURES:
            if now < self.next_try:
                return False
            self.next_try = now + _PAUSE_SECONDS
        return True
