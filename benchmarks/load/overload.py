"""More requests than the service can answer: how many it still answers, and how soon it refuses the rest.

First from clients that wait as `Retry-After` asks (`waiting.py`), then by wrk from clients that don't and
send four times as much as the service can do; the figures of the latter are reported, not aimed at. The
clients have the last core to themselves, since their work grows with their number. Needs wrk, two cores and
20 minutes. Run as python -m benchmarks.load.overload.
"""

import argparse
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

from benchmarks.load import waiting
from benchmarks.throughput import bodies, load
from benchmarks.throughput.bodies import Body
from benchmarks.throughput.servers import CACHE, digits, prepare
from digit_client import images

# Seconds until the queue is full and every connection has been refused or answered.
WARM_UP = 5
TIMES = 4
# Connections of clients that wait as they are asked.
WAITING = 1024
# The queue holds nearly all of the first; of the others most are refused.
CROWDS = [1024, 4096]
# Connections that leave the service no pause, and of which none is refused.
FULL = 64
KINDS = ["28×28 PNG", "280×280 RGB PNG", "64 images, JSON of PNGs", "640×480 photograph JPEG"]


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
    arguments = _arguments()
    digit = images.normalise(images.decode(bodies.PHOTOGRAPH.read_bytes()))
    sent = bodies.write(CACHE / "bodies", digit)
    server = prepare()[0]
    if arguments.checkout:
        server = digits("Digits", arguments.checkout / ".venv/bin/python")
    cores = sorted(os.sched_getaffinity(0))
    for kind in KINDS:
        if not any(part in kind for part in arguments.kind or [""]):
            continue
        os.sched_setaffinity(0, cores[:-1])
        with server.running() as url:
            os.sched_setaffinity(0, cores[-1:])
            _measure_waiting(url, kind, sent[kind], arguments.rounds, arguments.seconds)
            if not arguments.waiting_only:
                _measure(url, kind, sent[kind], arguments.rounds, arguments.seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Overload the service.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--kind", action="append", help="part of a kind of request's name; repeatable")
    parser.add_argument("--waiting-only", action="store_true", help="no clients that don't wait")
    parser.add_argument("--checkout", type=Path, help="another checkout with a .venv, measured instead")
    return parser.parse_args()


def _measure_waiting(url: str, kind: str, body: Body, rounds: int, seconds: int) -> None:
    """Print what clients get that wait as `Retry-After` asks, beside FULL connections in the same round."""
    content = body.file.read_bytes()
    shares = []
    for _ in range(rounds):
        full = waiting.run(url, content, body.content_type, FULL, seconds, WARM_UP)
        many = waiting.run(url, content, body.content_type, WAITING, seconds, WARM_UP)
        shares.append(many.rate(200) / full.rate(200))
        for connections, outcome in ((FULL, full), (WAITING, many)):
            sys.stdout.write(f"{kind}, {connections} connections that wait as they are asked:\n")
            sys.stdout.writelines(f"    {line}\n" for line in outcome.lines())
    sys.stdout.write(
        f"{kind}, {WAITING} connections that wait get {statistics.median(shares):.0%} of what {FULL} get "
        f"({min(shares):.0%} to {max(shares):.0%})\n"
    )
    sys.stdout.flush()


def _measure(url: str, kind: str, body: Body, rounds: int, seconds: int) -> None:
    load.run(url, body.file, body.content_type, FULL, WARM_UP)
    capacities, crowds = [], [Crowd(connections) for connections in CROWDS]
    for _ in range(rounds):
        capacity = _rates(url, body, FULL, seconds).answered
        capacities.append(capacity)
        for crowd in crowds:
            pause = round(1000 * crowd.connections / (TIMES * capacity))
            with _sampling(url, body, crowd.samples):
                rates = _rates(url, body, crowd.connections, seconds, pause)
            crowd.shares.append(rates.answered / capacity)
            crowd.refused.append(rates.refused)
    median = statistics.median(capacities)
    sys.stdout.write(f"{kind}, clients that don't wait: {median:,.0f} a second with {FULL} connections\n")
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


def _rates(url: str, body: Body, connections: int, measured: int, pause: int = 0) -> Outcome:
    """Once as many wait as will. wrk would not count those that wait at its end."""
    seconds = WARM_UP + measured + 1
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(load.run, url, body.file, body.content_type, connections, seconds, pause)
        time.sleep(WARM_UP)
        started, before = time.perf_counter(), _counts(url)
        time.sleep(measured)
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
