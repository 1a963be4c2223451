"""Throughput and latency of the product and its peer: `make bench` writes RESULTS.md.

Needs wrk. Prints a table instead with --case, --server or --baseline.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.service import PORTS, Server, article_models, digits
from benchmarks.throughput import bodies, load
from digit_core.artifact.versions import list_versions

HERE = Path(__file__).parent
RESULTS = HERE.with_name("RESULTS.md")
PEERS = Path(".cache/throughput/peers")

CASES = [
    ("28×28 PNG", 1),
    ("28×28 PNG", 8),
    ("28×28 PNG", 32),
    ("280×280 RGB PNG", 1),
    ("280×280 RGB PNG", 32),
    ("280×280 canvas PNG", 32),
    ("640×480 photograph JPEG", 8),
    ("64 images, NPY", 8),
    ("64 images, JSON of PNGs", 8),
]
"""Kinds of body, and numbers of connections."""

Figures = dict[str, dict[str, list[load.Load]]]
"""Loads measured in each round, by server and case; the first server is the product."""


def main() -> None:
    """Measure each server in turn, for several rounds, and report the medians."""
    arguments = _arguments()
    cases = {f"{body}, c={connections}": (body, connections) for body, connections in CASES}
    cases = {name: case for name, case in cases.items() if _matches(name, arguments.case)}
    servers = [server for server in _prepare(arguments.baseline) if _matches(server.name, arguments.server)]
    if not (cases and servers):
        sys.exit("No case or server matches the given names.")
    sent = bodies.write()
    figures: Figures = {server.name: {name: [] for name in cases} for server in servers}
    for number in range(arguments.rounds):
        for server in servers:
            sys.stdout.write(f"round {number + 1}: {server.name}\n")
            with server.running():
                for name, (body, connections) in cases.items():
                    load.run(sent[body], connections, 1)
                    figures[server.name][name].append(load.run(sent[body], connections, arguments.seconds))
    table = "\n".join(_table(figures)) + "\n"
    if arguments.case or arguments.server or arguments.baseline:
        sys.stdout.write(table)
        return
    RESULTS.write_text(
        "# Results of `make bench`\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), wrk on the same. "
        f"Medians of {arguments.rounds} rounds of {arguments.seconds} s; the article's model; requests per "
        "second, in brackets the median and the 99th percentile of the latency in ms. Pillow encoded the "
        "PNGs, Chromium that of the canvas. Digits segments the digit on a picture; the peer resizes it and "
        f"assumes light ink.\n\n{table}",
        encoding="utf-8",
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput and latency of the product and its peer.")
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements per server and case")
    parser.add_argument("--seconds", type=int, default=5, help="duration of each measurement")
    parser.add_argument("--case", help="part of the cases' names, such as '28x28 PNG, c=8'")
    parser.add_argument("--server", help="part of the servers' names")
    parser.add_argument("--baseline", type=Path, help="another checkout with a .venv, which is measured too")
    return parser.parse_args()


def _matches(name: str, part: str | None) -> bool:
    """True if there is no part or the name contains it; an x matches × too."""
    return not part or part.lower().replace("×", "x") in name.lower().replace("×", "x")


def _prepare(baseline: Path | None) -> list[Server]:
    """Fit the article's model, install the peer, and return the servers, the product first."""
    models = article_models()
    python = f"{PEERS}/bin/python"
    if not PEERS.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", str(PEERS)], check=True)
        wanted = ["--requirements", f"{HERE}/peers/requirements.txt", "--constraint", "constraints.txt"]
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, *wanted], check=True)
    model, *_ = list_versions(models / "digits").values()
    uvicorn = f"-m uvicorn --app-dir {HERE / 'peers'} --port {PORTS['DIGITS_PORT']} --workers 2".split()
    peer = Server(
        "FastAPI, TensorFlow in process",
        [
            python,
            *uvicorn,
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--log-level",
            "warning",
            "in_process:app",
        ],
        {"MODEL": str(model.path), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    other = f"{baseline}/.venv/bin/python"
    others = [digits(f"Digits in {baseline}", other, models)] if baseline else []
    return [digits(models=models), *others, peer]


def _table(figures: Figures) -> list[str]:
    """Return a Markdown table as lines: a row per case, with the ratio of the first server to each other."""
    first, *others = figures
    columns = [*figures, *(f"{first} to {other}" for other in others)]
    lines = [f"| | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    for name in figures[first]:
        medians = [
            [
                statistics.median(getattr(load, figure) for load in cases[name])
                for figure in ("rate", "median", "p99")
            ]
            for cases in figures.values()
        ]
        cells = [f"{rate:,.0f} ({median:.2f} / {p99:.1f})" for rate, median, p99 in medians]
        ratios = [f"{medians[0][0] / rate:.2f} ×" for rate, _, _ in medians[1:]]
        lines.append(f"| {' | '.join([name, *cells, *ratios])} |")
    return lines


if __name__ == "__main__":
    main()
