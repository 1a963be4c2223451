"""Throughput and latency beside others, in one run: `make bench`. Writes benchmarks/RESULTS.md and its plot.

Needs wrk. With --case, --server or --baseline it prints a table and writes nothing.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.throughput import bodies, load, report
from benchmarks.throughput.report import Case, Figures
from benchmarks.throughput.servers import CACHE, Server, digits, prepare
from digit_client import images

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
    """Measure each server in turn, in several rounds, and report the medians."""
    arguments = _arguments()
    cases = [case for case in CASES if _matches(str(case), arguments.case)]
    servers = prepare()
    if arguments.baseline:
        servers.insert(1, digits(f"Digits in {arguments.baseline}", arguments.baseline / ".venv/bin/python"))
    servers = [server for server in servers if _matches(server.name, arguments.server)]
    if not (cases and servers):
        sys.exit("No case or no server has such a name.")
    measured: Figures = {server.name: {case: [] for case in cases} for server in servers}
    for number in range(arguments.rounds):
        for server in servers:
            sys.stdout.write(f"round {number + 1}: {server.name}\n")
            for case, found in _measure(server, cases, arguments.seconds):
                measured[server.name][case].append(found)
                sys.stdout.write(
                    f"  {case}: {found.rate:,.0f} req/s, {found.median:.2f} / {found.p99:.2f} ms\n"
                )
                sys.stdout.flush()
    if arguments.case or arguments.server or arguments.baseline:
        sys.stdout.write("\n".join(report.table(measured)) + "\n")
    else:
        report.write(measured, arguments.seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput and latency beside others.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument(
        "--case", action="append", default=[], help="part of a case's name, as '28x28 PNG, c=8'; repeatable"
    )
    parser.add_argument("--server", action="append", default=[], help="part of a server's name; repeatable")
    parser.add_argument("--baseline", type=Path, help="another checkout with a .venv, measured as well")
    return parser.parse_args()


def _matches(name: str, parts: list[str]) -> bool:
    """True where the name contains one of the parts, or where there are none; an x stands for × as well."""
    return not parts or any(part.lower() in name.lower().replace("×", "x") or part in name for part in parts)


def _measure(server: Server, cases: list[Case], seconds: int) -> list[tuple[Case, load.Load]]:
    digit = images.normalise(images.decode(bodies.PHOTOGRAPH.read_bytes()))
    sent = bodies.write(CACHE / "bodies", digit)
    found = []
    with server.running() as url:
        for case in cases:
            body = sent[case.body]
            load.run(url, body.file, body.content_type, case.connections, 1)
            seen = load.run(url, body.file, body.content_type, case.connections, seconds)
            if seen.failed:
                raise RuntimeError(f"{server.name} failed {seen.failed} requests of {case}")
            found.append((case, seen))
    return found


if __name__ == "__main__":
    main()
