"""Paced load through the client: threads that send one image after another."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.startup import URL
from digit_client import Client, RetryPolicy
from digit_core.errors import DigitError

THREADS = 8
# Enough attempts to outlast a restart of the model server, which takes seconds.
_RETRIES = RetryPolicy(max_attempts=50)
_TIMEOUT = 30.0


@dataclass(frozen=True)
class Answer:
    """One call: start by time.monotonic(), seconds with retries, and an error code or a wrong prediction."""

    started: float
    seconds: float
    error: str | None
    version: int = 0


@dataclass
class Answers:
    """Answers received so far."""

    answers: list[Answer] = field(default_factory=list)

    def rate(self) -> float:
        """Return the answers per second."""
        ends = [answer.started + answer.seconds for answer in self.answers]
        return len(ends) / (max(ends) - min(answer.started for answer in self.answers))


@contextmanager
def send_load(image: bytes, digit: int, rate: float | None = None) -> Iterator[Answers]:
    """Send `rate` images per second inside of the block; without a rate, send as fast as answers arrive."""
    received, stop = Answers(), threading.Event()
    interval = THREADS / rate if rate else 0.0
    with Client(URL, timeout=_TIMEOUT, retries=_RETRIES) as client:

        def call(number: int) -> None:
            due = time.monotonic() + interval * number / THREADS
            while not stop.wait(max(0.0, due - time.monotonic())):
                received.answers.append(_predict(client, image, digit))
                # A delayed thread skips the images that it missed, instead of sending a burst.
                due = max(due + interval, time.monotonic() - interval)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield received
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def _predict(client: Client, image: bytes, digit: int) -> Answer:
    started = time.monotonic()
    try:
        prediction = client.predict(image)
    except DigitError as error:
        return Answer(started, time.monotonic() - started, error.code)
    mistake = None if prediction.digit == digit else f"predicted {prediction.digit}"
    return Answer(started, time.monotonic() - started, mistake, prediction.model_version)
