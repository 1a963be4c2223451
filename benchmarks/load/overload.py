"""Four times as much as the service can do: what it still answers, and how soon it refuses the rest.

Needs wrk and two cores, of which it has the last to itself, for what it takes grows with its connections. Run
as python -m benchmarks.load.overload.
"""

import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.throughput import bodies, load
from benchmarks.throughput.bodies import Body
from benchmarks.throughput.servers import CACHE, prepare
from digit_client import images

SECONDS = 30
# Until as many wait as may, and every connection has been refused or answered.
WARM_UP = 5
TIMES = 4
CONNECTIONS = 1024
# As many as it takes for the service to have no pause, and few enough that nobody is refused.
FULL = 64
KINDS = ["28×28 PNG", "280×280 RGB PNG", "64 images, JSON of PNGs"]
PHOTOGRAPH = Path("docs/five.jpg")

Sample = tuple[int, float]
"""A status, and the milliseconds to it."""


def main() -> None:
    """Print a row for each kind of request."""
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
    capacity = _answered(url, body, FULL)
    pause = round(1000 * CONNECTIONS / (TIMES * capacity))
    with _sampling(url, body) as samples:
        answered = _answered(url, body, CONNECTIONS, pause)
    sys.stdout.write(
        f"{kind}: {capacity:,.0f} a second with {FULL} connections; with {CONNECTIONS} "
        f"{answered:,.0f} are answered, {answered / capacity:.0%} of that\n"
    )
    for status in sorted({status for status, _ in samples}):
        times = [milliseconds for each, milliseconds in samples if each == status]
        sys.stdout.write(
            f"  {status} after {statistics.median(times):.0f} ms in the median, {max(times):.0f} at most, "
            f"of {len(times)} requests beside those\n"
        )


def _answered(url: str, body: Body, connections: int, pause: int = 0) -> float:
    """Predictions a second, once as many wait as will. wrk would not count those that wait at its end."""
    seconds = WARM_UP + SECONDS + 1
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(load.run, url, body.file, body.content_type, connections, seconds, pause)
        time.sleep(WARM_UP)
        started, before = time.perf_counter(), _count(url)
        time.sleep(SECONDS)
        rate = (_count(url) - before) / (time.perf_counter() - started)
        loading.result()
    return rate


def _count(url: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=30).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "digits_requests_total"
        and (sample.labels["route"], sample.labels["status"]) == ("/v1/predict", "200")
    )


@contextmanager
def _sampling(url: str, body: Body) -> Iterator[list[Sample]]:
    """What callers see inside the block who open a connection for each request."""
    samples: list[Sample] = []
    stop = threading.Event()
    content = body.file.read_bytes()
    headers = {"content-type": body.content_type, "connection": "close"}

    def sample() -> None:
        # Made once: to read the certificates that httpx comes with takes longer than an answer.
        with httpx.Client(headers=headers, timeout=30) as client:
            while not stop.wait(0.05):
                started = time.perf_counter()
                status = client.post(f"{url}/v1/predict", content=content).status_code
                samples.append((status, 1000 * (time.perf_counter() - started)))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
