"""Arithmetic of docs/how-to/plan-capacity.md."""

import math
import re

import pytest

from benchmarks.cost import BUSY, RATES
from tests.readme import ROOT

TEXT = (ROOT / "docs" / "how-to" / "plan-capacity.md").read_text()


def table_row(name: str) -> list[float]:
    """Return the figures of the table row with this first cell."""
    (cells,) = re.findall(rf"^\| {name} \|(.*)\|$", TEXT, re.MULTILINE)
    return [float(cell.replace(",", "")) for cell in cells.split("|")]


@pytest.mark.parametrize("rate", RATES)
def test_pods_of_each_rate_follow_from_costs(rate: int) -> None:
    costs = table_row("a photo of 640 × 480")
    assert table_row(f"{rate:,}") == [math.ceil(round(rate * cost / 1000 / BUSY, 6)) for cost in costs]
