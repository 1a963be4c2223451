"""Closed-loop load by wrk: each connection sends its next request when the last one is answered."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service import URL
from benchmarks.throughput.bodies import Body

_SCRIPT = Path(__file__).with_name("post.lua")
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Load:
    """Measured load: requests per second, and percentiles of the latency in milliseconds."""

    rate: float
    median: float
    p99: float


def run(body: Body, connections: int, seconds: int) -> Load:
    """Send the body over `connections` for `seconds`. Raise RuntimeError if a request fails."""
    options = f"--threads 1 --connections {connections} --duration {seconds}s --timeout 30s --latency".split()
    command = ["wrk", *options, "--script", str(_SCRIPT), URL, "--", str(body.file), body.content_type]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if failed := re.search(r"(Socket errors|Non-2xx or 3xx responses): .*", text):
        raise RuntimeError(failed[0])
    rate = float(_first(r"Requests/sec:\s+([\d.]+)", text)[1])
    return Load(rate, _milliseconds("50%", text), _milliseconds("99%", text))


def _milliseconds(percentile: str, text: str) -> float:
    found = _first(rf"^\s+{percentile}\s+([\d.]+)(\w+)", text)
    return float(found[1]) * _UNITS[found[2]]


def _first(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no match for {pattern!r} in the output of wrk:\n{text}")
    return found
