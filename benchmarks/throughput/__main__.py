"""Throughput and latency of the product and its peers: `make bench` writes RESULTS.md and its plot.

Needs wrk. Prints a table instead with --case, --server or --baseline.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.throughput import bodies, load, report
from benchmarks.throughput.report import Case, Figures
from benchmarks.throughput.servers import CACHE, Server, digits, prepare
from digit_core import images

CASES = [
    Case("28×28 PNG", 1),
    Case("28×28 PNG", 8),
    Case("28×28 PNG", 32),
    Case("280×280 RGB PNG", 1),
    Case("280×280 RGB PNG", 32),
    Case("280×280 canvas PNG", 32),
    Case("640×480 photograph JPEG", 8),
    Case("64 images, NPY", 8),
    Case("64 images, JSON of PNGs", 8),
]


def main() -> None:
    """Measure each server in turn, for several rounds, and report the medians."""
    arguments = _arguments()
    cases = [case for case in CASES if _matches(str(case), arguments.case)]
    servers = prepare()
    if arguments.baseline:
        servers.insert(1, digits(f"Digits in {arguments.baseline}", arguments.baseline / ".venv/bin/python"))
    servers = [server for server in servers if _matches(server.name, arguments.server)]
    if not (cases and servers):
        sys.exit("No case or server matches the given names.")
    measured: Figures = {server.name: {case: [] for case in cases} for server in servers}
    for number in range(arguments.rounds):
        for server in servers:
            sys.stdout.write(f"round {number + 1}: {server.name}\n")
            for case, result in _measure(server, cases, arguments.seconds):
                measured[server.name][case].append(result)
                sys.stdout.write(
                    f"  {case}: {result.rate:,.0f} req/s, {result.median:.2f} / {result.p99:.2f} ms\n"
                )
                sys.stdout.flush()
    if arguments.case or arguments.server or arguments.baseline:
        sys.stdout.write("\n".join(report.table(measured)) + "\n")
    else:
        report.write(measured, arguments.seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput and latency of the product and its peers.")
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements per server and case")
    parser.add_argument("--seconds", type=int, default=5, help="duration of each measurement")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        help="substring of a case's name, such as '28x28 PNG, c=8'; repeatable",
    )
    parser.add_argument(
        "--server", action="append", default=[], help="substring of a server's name; repeatable"
    )
    parser.add_argument(
        "--baseline", type=Path, help="path of another checkout with a .venv, which is measured too"
    )
    return parser.parse_args()


def _matches(name: str, parts: list[str]) -> bool:
    """True if there are no parts or the name contains one of them; an x matches × too."""
    return not parts or any(part.lower() in name.lower().replace("×", "x") or part in name for part in parts)


def _measure(server: Server, cases: list[Case], seconds: int) -> list[tuple[Case, load.Load]]:
    digit = images.normalise(images.decode(bodies.PHOTOGRAPH.read_bytes()))
    sent = bodies.write(CACHE / "bodies", digit)
    loads = []
    with server.running() as url:
        for case in cases:
            body = sent[case.body]
            load.run(url, body.file, body.content_type, case.connections, 1)
            measured = load.run(url, body.file, body.content_type, case.connections, seconds)
            if measured.failed:
                raise RuntimeError(f"{server.name} failed {measured.failed} requests of {case}")
            loads.append((case, measured))
    return loads


if __name__ == "__main__":
    main()
