"""Report of the throughput benchmark: a table and a plot."""

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.throughput.load import Load

_FOLDER = Path(__file__).parent.parent


@dataclass(frozen=True)
class Case:
    """Kind of body, and number of concurrent connections."""

    body: str
    connections: int

    def __str__(self) -> str:
        return f"{self.body}, c={self.connections}"


Figures = dict[str, dict[Case, list[Load]]]
"""Loads measured in each round, by server and case; the first server is the product."""


def write(figures: Figures, seconds: int) -> None:
    """Write RESULTS.md and results.png beside this package."""
    rates = {name: _medians(cases, lambda measured: measured.rate) for name, cases in figures.items()}
    _plot(rates, _FOLDER / "results.png")
    rounds = len(next(iter(next(iter(figures.values())).values())))
    lines = [
        "# Results of `make bench`",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), wrk on the same. "
        f"Medians of {rounds} rounds of {seconds} s; the article's model; requests per second, in brackets "
        "the median and the 99th percentile of the latency in ms. Pillow encoded the PNGs, Chromium that of "
        "the canvas. Digits segments the digit on a picture; the peer resizes it and assumes light ink.",
        "",
        "![Requests per second](results.png)",
        "",
        *table(figures),
    ]
    (_FOLDER / "RESULTS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(figures: Figures) -> list[str]:
    """Return a Markdown table as lines: a row per case, with the ratio of the first server to each other."""
    rates = {name: _medians(cases, lambda measured: measured.rate) for name, cases in figures.items()}
    first, *others = figures
    columns = [*figures, *(f"{first} to {other}" for other in others)]
    return [
        f"| | {' | '.join(columns)} |",
        f"|{'---|' * (len(columns) + 1)}",
        *(_row(case, figures, rates) for case in figures[first]),
    ]


def _medians(cases: dict[Case, list[Load]], figure: Callable[[Load], float]) -> dict[Case, float]:
    return {case: statistics.median(map(figure, loads)) for case, loads in cases.items()}


def _row(case: Case, figures: Figures, rates: dict[str, dict[Case, float]]) -> str:
    cells = []
    for name, cases in figures.items():
        median = statistics.median(measured.median for measured in cases[case])
        p99 = statistics.median(measured.p99 for measured in cases[case])
        cells.append(f"{rates[name][case]:,.0f} ({median:.2f} / {p99:.1f})")
    ours, *others = (rates[name][case] for name in figures)
    return f"| {' | '.join([str(case), *cells, *(f'{ours / other:.2f} ×' for other in others)])} |"


def _plot(rates: dict[str, dict[Case, float]], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    cases = list(next(iter(rates.values())))
    height = 0.8 / len(rates)
    for number, (name, case_rates) in enumerate(rates.items()):
        positions = [position + number * height for position in range(len(cases))]
        bars = axes.barh(positions, [case_rates[case] for case in cases], height, label=name)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(
        [position + 0.4 - height / 2 for position in range(len(cases))], [str(case) for case in cases]
    )
    axes.invert_yaxis()
    axes.set_xlabel("requests per second")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
