"""The arithmetic of docs/scaling.md."""

import math
import re
from pathlib import Path

import pytest

from benchmarks.cost import BUSY, RATES

TEXT = (Path(__file__).parent.parent.parent / "docs" / "scaling.md").read_text()


def row(name: str) -> list[float]:
    """The figures of a table's row."""
    (cells,) = re.findall(rf"^\| {name} \|(.*)\|$", TEXT, re.MULTILINE)
    return [float(cell.replace(",", "")) for cell in cells.split("|")]


@pytest.mark.parametrize("rate", RATES)
def test_pods_follow_from_costs(rate: int) -> None:
    costs = row("a photo of 640 × 480")
    assert row(f"{rate:,}") == [math.ceil(round(rate * cost / 1000 / BUSY, 6)) for cost in costs]
