"""Closed-loop load by wrk: each connection sends its next request when the last one is answered."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).parent / "post.lua"
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Load:
    """Measured load: requests per second, and percentiles of the latency in milliseconds."""

    rate: float
    median: float
    p99: float
    failed: int
    """Requests without a 2xx response."""


def run(url: str, body: Path, content_type: str, connections: int, seconds: int, pause: int = 0) -> Load:
    """Send the file's bytes as request bodies over `connections` for `seconds`.

    A connection waits for `pause` milliseconds on average, at most twice that, between response and request.
    """
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += [
        "--timeout",
        "30s",
        "--latency",
        "--script",
        str(_SCRIPT),
        url,
        "--",
        str(body),
        content_type,
        str(pause),
    ]
    return _parse(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _parse(text: str) -> Load:
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return Load(
        rate=float(_first(r"Requests/sec:\s+([\d.]+)", text)),
        median=_milliseconds("50%", text),
        p99=_milliseconds("99%", text),
        failed=int(failed[1] if failed else 0) + sum(map(int, broken.groups() if broken else ())),
    )


def _milliseconds(percentile: str, text: str) -> float:
    number, unit = re.fullmatch(
        r"([\d.]+)(\w+)", _first(rf"^\s+{re.escape(percentile)}\s+(\S+)", text)
    ).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no match for {pattern!r} in the output of wrk:\n{text}")
    return found[1]
