"""Callers who each send one image after the other through the client, at a pace."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.startup import URL
from digit_client import DigitClient, DigitError, RetryPolicy

CALLERS = 8
# The model server takes seconds to start.
_PATIENCE = RetryPolicy(attempts=50)
_TIMEOUT = 30.0


@dataclass(frozen=True)
class Answer:
    """What a call came to: when it was made, how long it took with its retries, and whether it was right."""

    started: float
    seconds: float
    error: str | None
    version: int = 0


@dataclass
class Crowd:
    """All answers until now; times are time.monotonic's."""

    answers: list[Answer] = field(default_factory=list)

    def rate(self) -> float:
        """Answers a second."""
        ends = [answer.started + answer.seconds for answer in self.answers]
        return len(ends) / (max(ends) - min(answer.started for answer in self.answers))


@contextmanager
def calling(image: bytes, digit: int, rate: float | None = None) -> Iterator[Crowd]:
    """Callers inside the block, who together send `rate` a second, or as many as are answered."""
    crowd, stop = Crowd(), threading.Event()
    pause = CALLERS / rate if rate else 0.0
    with DigitClient(URL, timeout=_TIMEOUT, retries=_PATIENCE) as client:

        def call(number: int) -> None:
            turn = time.monotonic() + pause * number / CALLERS
            while not stop.wait(max(0.0, turn - time.monotonic())):
                crowd.answers.append(_ask(client, image, digit))
                # Who was held up does not make up for it.
                turn = max(turn + pause, time.monotonic() - pause)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield crowd
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def _ask(client: DigitClient, image: bytes, digit: int) -> Answer:
    started = time.monotonic()
    try:
        prediction = client.predict(image)
    except DigitError as error:
        return Answer(started, time.monotonic() - started, error.code)
    wrong = None if prediction.digit == digit else f"read as {prediction.digit}"
    return Answer(started, time.monotonic() - started, wrong, prediction.model_version)
