"""Scaling of throughput, latency and memory with images per request and with connections.

Needs wrk. Run as python -m benchmarks.growth.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.startup import children, memory
from benchmarks.throughput import bodies, load
from benchmarks.throughput.bodies import Body
from benchmarks.throughput.servers import CACHE, prepare
from digit_core import images

SECONDS = 4
CONNECTIONS = 8
IMAGES = [2**power for power in range(10)]
CONCURRENCIES = [2**power for power in range(9)]


def main() -> None:
    """Print a row for each number of images per request, and for each number of connections."""
    digit = images.normalise(images.decode(Path("docs/five.jpg").read_bytes()))
    single = bodies.write(CACHE / "bodies", digit)["28×28 PNG"]
    file = CACHE / "bodies" / "many"
    digits = prepare()[0]
    settings = {**digits.environment, "DIGITS_MAX_IMAGES": str(IMAGES[-1])}
    with replace(digits, environment=settings).running() as url:
        _print_head(f"images, {CONNECTIONS} connections")
        for count in IMAGES:
            file.write_bytes(bodies.many(digit, count))
            _print_row(count, url, Body(file, "application/x-npy"), CONNECTIONS, count)
        _print_head("connections, one image")
        for connections in CONCURRENCIES:
            _print_row(connections, url, single, connections, 1)


def _print_head(first: str) -> None:
    columns = ["requests/s", "images/s", "p50 ms", "p99 ms", "memory MB"]
    sys.stdout.write(f"{first:24}" + "".join(f"{column:>12}" for column in columns) + "\n")


def _print_row(name: int, url: str, body: Body, connections: int, count: int) -> None:
    load.run(url, body.file, body.content_type, connections, 1)
    measured = load.run(url, body.file, body.content_type, connections, SECONDS)
    if measured.failed:
        raise RuntimeError(f"{measured.failed} requests failed")
    figures = [measured.rate, measured.rate * count, measured.median, measured.p99, _memory()]
    sys.stdout.write(f"{name:<24}" + "".join(f"{figure:12,.1f}" for figure in figures) + "\n")
    sys.stdout.flush()


def _memory() -> float:
    """Return the memory of the service's processes, in megabytes."""
    (up,) = children(os.getpid())
    return sum(memory(pid) for pid in children(up))


if __name__ == "__main__":
    main()
