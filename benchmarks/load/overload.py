"""Overload: throughput of answered requests, and the latency of refusals.

The first load comes from clients that honour `Retry-After` (`waiting.py`), the second from wrk, whose clients
don't and send four times the capacity; the second figures are reported without a target. The clients are
pinned to the last core: their CPU time grows with their number. Needs wrk, two cores and 20 minutes. Run as
python -m benchmarks.load.overload.
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
from digit_core import images

# Seconds until the queue is full and each connection has been answered or refused.
WARM_UP = 5
# Request rate of clients that don't wait, as a multiple of the capacity.
OVERLOAD = 4
# Connections of clients that honour Retry-After.
WAITING = 1024
# Connections of clients that don't: the queue holds nearly all of 1024, and few of 4096.
CONNECTIONS = [1024, 4096]
# Connections that saturate the service without a refusal: their throughput is the capacity.
SATURATING = 64
KINDS = ["28×28 PNG", "280×280 RGB PNG", "64 images, JSON of PNGs", "640×480 photograph JPEG"]


class Requests(NamedTuple):
    """Answered and refused requests, in total or per second."""

    answered: float
    refused: float


@dataclass
class Overload:
    """Measurements with this number of connections, one per round."""

    connections: int
    shares: list[float] = field(default_factory=list)
    """Answered requests as a share of the capacity in the same round."""
    refused: list[float] = field(default_factory=list)
    """Refused requests per second."""
    samples: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Milliseconds of each response to a separate probing client, by status."""


def main() -> None:
    """Print the measurements for each kind of request."""
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
    parser = argparse.ArgumentParser(description="Throughput and refusals under overload.")
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements of each kind")
    parser.add_argument("--seconds", type=int, default=10, help="duration of each measurement")
    parser.add_argument(
        "--kind", action="append", help="substring of the kind of request, such as '28×28'; repeatable"
    )
    parser.add_argument("--waiting-only", action="store_true", help="only clients that honour Retry-After")
    parser.add_argument(
        "--checkout", type=Path, help="path of another checkout with a .venv, which is measured instead"
    )
    return parser.parse_args()


def _measure_waiting(url: str, kind: str, body: Body, rounds: int, seconds: int) -> None:
    """Print the throughput of clients that honour Retry-After, and of SATURATING connections."""
    content = body.file.read_bytes()
    shares = []
    for _ in range(rounds):
        full = waiting.run(url, content, body.content_type, SATURATING, seconds, WARM_UP)
        many = waiting.run(url, content, body.content_type, WAITING, seconds, WARM_UP)
        shares.append(many.rate(200) / full.rate(200))
        for connections, outcome in ((SATURATING, full), (WAITING, many)):
            sys.stdout.write(f"{kind}, {connections} connections that honour Retry-After:\n")
            sys.stdout.writelines(f"    {line}\n" for line in outcome.lines())
    sys.stdout.write(
        f"{kind}, {WAITING} connections reach {statistics.median(shares):.0%} of the throughput of "
        f"{SATURATING} ({min(shares):.0%} to {max(shares):.0%})\n"
    )
    sys.stdout.flush()


def _measure(url: str, kind: str, body: Body, rounds: int, seconds: int) -> None:
    load.run(url, body.file, body.content_type, SATURATING, WARM_UP)
    capacities, overloads = [], [Overload(connections) for connections in CONNECTIONS]
    for _ in range(rounds):
        capacity = _rates(url, body, SATURATING, seconds).answered
        capacities.append(capacity)
        for overload in overloads:
            pause = round(1000 * overload.connections / (OVERLOAD * capacity))
            with _sampling(url, body, overload.samples):
                rates = _rates(url, body, overload.connections, seconds, pause)
            overload.shares.append(rates.answered / capacity)
            overload.refused.append(rates.refused)
    median = statistics.median(capacities)
    sys.stdout.write(
        f"{kind}, clients that don't wait: {median:,.0f} requests per second with {SATURATING} connections\n"
    )
    for overload in overloads:
        _print(overload)


def _print(overload: Overload) -> None:
    sys.stdout.write(
        f"  {overload.connections} connections: {statistics.median(overload.shares):.0%} of these answered "
        f"({min(overload.shares):.0%} to {max(overload.shares):.0%}), "
        f"{statistics.median(overload.refused):,.0f} refused per second\n"
    )
    for status, times in sorted(overload.samples.items()):
        sys.stdout.write(
            f"    {status} after {statistics.median(times):.0f} ms (median), {max(times):.0f} ms (maximum) "
            f"over {len(times)} requests of a separate client\n"
        )


def _rates(url: str, body: Body, connections: int, measured: int, pause: int = 0) -> Requests:
    """Return requests per second in steady state, from the service's metrics.

    wrk itself would not count requests that are pending at its end.
    """
    seconds = WARM_UP + measured + 1
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(load.run, url, body.file, body.content_type, connections, seconds, pause)
        time.sleep(WARM_UP)
        started, before = time.monotonic(), _counts(url)
        time.sleep(measured)
        after, took = _counts(url), time.monotonic() - started
        loading.result()
    return Requests((after.answered - before.answered) / took, (after.refused - before.refused) / took)


def _counts(url: str) -> Requests:
    """Return the requests since the service started."""
    text = httpx.get(f"{url}/metrics", timeout=30).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    answered = sum(
        sample.value
        for sample in samples
        if sample.name == "digits_requests_total"
        and (sample.labels["route"], sample.labels["status"]) == ("/v1/predict", "200")
    )
    refused = sum(sample.value for sample in samples if sample.name == "digits_overload_total")
    return Requests(answered, refused)


@contextmanager
def _sampling(url: str, body: Body, samples: dict[int, list[float]]) -> Iterator[None]:
    """Sample responses inside of the block, by a client that opens a connection for each request."""
    stop = threading.Event()
    content = body.file.read_bytes()
    headers = {"content-type": body.content_type, "connection": "close"}

    def sample() -> None:
        # One client for all requests: its creation, which reads certificates, takes longer than a response.
        with httpx.Client(headers=headers, timeout=30) as client:
            while not stop.wait(0.05):
                started = time.monotonic()
                status = client.post(f"{url}/v1/predict", content=content).status_code
                samples[status].append(1000 * (time.monotonic() - started))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
