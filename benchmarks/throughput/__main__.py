"""Throughput and latency beside others, in one run: `make bench`. Writes benchmarks/RESULTS.md and its plot.

Needs wrk.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.throughput import bodies, load, report
from benchmarks.throughput.report import Case, Figures
from benchmarks.throughput.servers import CACHE, Server, prepare
from digit_client import images

CASES = [
    Case("28×28 PNG", 1),
    Case("28×28 PNG", 8),
    Case("28×28 PNG", 32),
    Case("280×280 RGB PNG", 32),
    Case("64 images, NPY", 8),
    Case("64 images, JSON of PNGs", 8),
]


def main() -> None:
    """Measure each server in turn, in several rounds, and write what came of it."""
    arguments = _arguments()
    servers = [server for server in prepare() if arguments.only in server.name]
    measured: Figures = {server.name: {case: [] for case in CASES} for server in servers}
    for number in range(arguments.rounds):
        for server in servers:
            sys.stdout.write(f"round {number + 1}: {server.name}\n")
            for case, found in _measure(server, arguments.seconds).items():
                measured[server.name][case].append(found)
                sys.stdout.write(
                    f"  {case}: {found.rate:,.0f} req/s, {found.median:.2f} / {found.p99:.2f} ms\n"
                )
    if not arguments.only:
        report.write(measured, arguments.seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput and latency beside others.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--only", default="", help="part of a server's name; writes no report")
    return parser.parse_args()


def _measure(server: Server, seconds: int) -> dict[Case, load.Load]:
    digit = images.normalise(images.decode(Path("docs/five.jpg").read_bytes()))
    sent = bodies.write(CACHE / "bodies", digit)
    found = {}
    with server.running() as url:
        for case in CASES:
            body = sent[case.body]
            load.run(url, body.file, body.content_type, case.connections, 1)
            found[case] = load.run(url, body.file, body.content_type, case.connections, seconds)
            if found[case].failed:
                raise RuntimeError(f"{server.name} failed {found[case].failed} requests of {case}")
    return found


if __name__ == "__main__":
    main()
