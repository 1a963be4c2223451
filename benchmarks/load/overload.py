"""Four times as much as the service can do: what it still answers, and how soon it refuses the rest.

Needs wrk and two cores, of which it has the last to itself, for what it takes grows with its connections, and
ten minutes. Run as python -m benchmarks.load.overload.
"""

import os
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.throughput import bodies, load
from benchmarks.throughput.bodies import Body
from benchmarks.throughput.servers import CACHE, prepare
from digit_client import images

ROUNDS = 3
SECONDS = 10
# Until as many wait as may, and every connection has been refused or answered.
WARM_UP = 5
TIMES = 4
# The first may nearly all wait, of the others most are refused.
CROWDS = [1024, 4096]
# As many as it takes for the service to have no pause, and few enough that nobody is refused.
FULL = 64
KINDS = ["28×28 PNG", "280×280 RGB PNG", "64 images, JSON of PNGs"]
PHOTOGRAPH = Path("docs/five.jpg")


class Outcome(NamedTuple):
    """Requests, in all or a second."""

    answered: float
    refused: float


@dataclass
class Crowd:
    """What so many connections got in each round."""

    connections: int
    shares: list[float] = field(default_factory=list)
    """Of what FULL connections got in the same round."""
    refused: list[float] = field(default_factory=list)
    """Requests a second."""
    samples: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The milliseconds to each answer of other callers, by its status."""


def main() -> None:
    """Print what became of each kind of request."""
    digit = images.normalise(images.decode(PHOTOGRAPH.read_bytes()))
    small = bodies.write(CACHE / "bodies", digit)
    sent = {kind: small[kind] for kind in KINDS} | {"photograph": Body(PHOTOGRAPH, "image/jpeg")}
    cores = sorted(os.sched_getaffinity(0))
    for kind, body in sent.items():
        os.sched_setaffinity(0, cores[:-1])
        with prepare()[0].running() as url:
            os.sched_setaffinity(0, cores[-1:])
            _measure(url, kind, body)


def _measure(url: str, kind: str, body: Body) -> None:
    load.run(url, body.file, body.content_type, FULL, WARM_UP)
    capacities, crowds = [], [Crowd(connections) for connections in CROWDS]
    for _ in range(ROUNDS):
        capacity = _rates(url, body, FULL).answered
        capacities.append(capacity)
        for crowd in crowds:
            pause = round(1000 * crowd.connections / (TIMES * capacity))
            with _sampling(url, body, crowd.samples):
                rates = _rates(url, body, crowd.connections, pause)
            crowd.shares.append(rates.answered / capacity)
            crowd.refused.append(rates.refused)
    sys.stdout.write(f"{kind}: {statistics.median(capacities):,.0f} a second with {FULL} connections\n")
    for crowd in crowds:
        _tell(crowd)


def _tell(crowd: Crowd) -> None:
    sys.stdout.write(
        f"  {crowd.connections} connections: {statistics.median(crowd.shares):.0%} of that answered "
        f"({min(crowd.shares):.0%} to {max(crowd.shares):.0%}), "
        f"{statistics.median(crowd.refused):,.0f} a second refused\n"
    )
    for status, times in sorted(crowd.samples.items()):
        sys.stdout.write(
            f"    {status} after {statistics.median(times):.0f} ms in the median, {max(times):.0f} at most, "
            f"of {len(times)} requests beside those\n"
        )


def _rates(url: str, body: Body, connections: int, pause: int = 0) -> Outcome:
    """Once as many wait as will. wrk would not count those that wait at its end."""
    seconds = WARM_UP + SECONDS + 1
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(load.run, url, body.file, body.content_type, connections, seconds, pause)
        time.sleep(WARM_UP)
        started, before = time.perf_counter(), _counts(url)
        time.sleep(SECONDS)
        after, took = _counts(url), time.perf_counter() - started
        loading.result()
    return Outcome((after.answered - before.answered) / took, (after.refused - before.refused) / took)


def _counts(url: str) -> Outcome:
    """Since the service started."""
    text = httpx.get(f"{url}/metrics", timeout=30).text
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    answered = sum(
        sample.value
        for sample in samples
        if sample.name == "digits_requests_total"
        and (sample.labels["route"], sample.labels["status"]) == ("/v1/predict", "200")
    )
    return Outcome(answered, sum(each.value for each in samples if each.name == "digits_overload_total"))


@contextmanager
def _sampling(url: str, body: Body, samples: dict[int, list[float]]) -> Iterator[None]:
    """Note what callers see inside the block who open a connection for each request."""
    stop = threading.Event()
    content = body.file.read_bytes()
    headers = {"content-type": body.content_type, "connection": "close"}

    def sample() -> None:
        # Made once: to read the certificates that httpx comes with takes longer than an answer.
        with httpx.Client(headers=headers, timeout=30) as client:
            while not stop.wait(0.05):
                started = time.perf_counter()
                status = client.post(f"{url}/v1/predict", content=content).status_code
                samples[status].append(1000 * (time.perf_counter() - started))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
