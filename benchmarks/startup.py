"""Start-up time, memory and single-request latency: medians over several runs.

Needs a published model in models/digits; see `digits train`.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx

DIGITS = [sys.executable, "-m", "digit_client"]
RUNS = 5
PORTS = {"DIGITS_PORT": "18080", "DIGITS_GRPC_PORT": "18500", "DIGITS_REST_PORT": "18501"}
URL = f"http://127.0.0.1:{PORTS['DIGITS_PORT']}"

_Result = TypeVar("_Result")


def main() -> None:
    """Print a row for each measurement."""
    row("import digit_client", import_seconds("import digit_client"), "s")
    row("from digit_client import Client", import_seconds("from digit_client import Client"), "s")
    gateways = [start(["gateway"], "/livez") for _ in range(RUNS)]
    row("gateway: start to alive", [seconds for seconds, _ in gateways], "s")
    row("gateway: memory of all its processes (PSS)", [megabytes for _, megabytes in gateways], "MB")
    stacks = [start(["up"], "/readyz") for _ in range(RUNS)]
    row("digits up: start to ready", [seconds for seconds, _ in stacks], "s")
    httpx_ms, client_ms = latencies()
    row("predict, one photograph, by httpx", httpx_ms, "ms")
    row("predict, the same, by Client", client_ms, "ms")
    ratios = [client / plain for plain, client in zip(httpx_ms, client_ms, strict=True)]
    row("Client to httpx", ratios, "×")


def import_seconds(code: str) -> list[float]:
    """Return the seconds of an import in new processes, without the interpreter's start-up."""
    timed = f"import time; t = time.monotonic(); {code}; print(time.monotonic() - t)"
    return [float(subprocess.check_output([sys.executable, "-c", timed])) for _ in range(RUNS)]


def start(command: list[str], path: str) -> tuple[float, float]:
    """Return the seconds from a process's start until the path answers 200, and its memory in megabytes."""
    return with_service(command, path, lambda process, seconds: (seconds, memory(process.pid)))


def latencies() -> tuple[list[float], list[float]]:
    """Return the milliseconds of a prediction over one connection, alternately by httpx and Client."""

    def measure(_process: subprocess.Popen[bytes], _seconds: float) -> tuple[list[float], list[float]]:
        from digit_client import Client

        image, headers = Path("docs/five.jpg").read_bytes(), {"content-type": "image/jpeg"}
        with Client(URL) as client, httpx.Client(base_url=URL, trust_env=False) as plain:

            def by_httpx() -> None:
                plain.post("/v1/predict", content=image, headers=headers).raise_for_status().json()

            pairs = [(mean(by_httpx), mean(partial(client.predict, image))) for _ in range(4 * RUNS)]
        # The first two means include one-time initialisation.
        return [first for first, _ in pairs[2:]], [second for _, second in pairs[2:]]

    return with_service(["up"], "/readyz", measure)


def mean(work: Callable[[], object], times: int = 50) -> float:
    """Return the mean milliseconds of `times` calls."""
    started = time.monotonic()
    for _ in range(times):
        work()
    return (time.monotonic() - started) * 1000 / times


def with_service(
    command: list[str], path: str, measure: Callable[[subprocess.Popen[bytes], float], _Result]
) -> _Result:
    """Run `digits …` until the path answers 200, measure, and stop the process."""
    started = time.monotonic()
    process = subprocess.Popen([*DIGITS, *command], env={**os.environ, **PORTS}, stdout=subprocess.DEVNULL)
    try:
        while not answers(f"{URL}{path}"):
            time.sleep(0.02)
        return measure(process, time.monotonic() - started)
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """True if the URL answers with 200."""
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def memory(pid: int) -> float:
    """Return the megabytes of a process and its children; shared pages count once."""
    return sum(proportional_set_size(process) for process in [pid, *children(pid)])


def children(pid: int) -> list[int]:
    """Return the IDs of a process's child processes, oldest first."""
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def proportional_set_size(pid: int) -> float:
    """Return the proportional set size (PSS) in megabytes: shared pages count in proportion."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def row(name: str, values: list[float], unit: str) -> None:
    """Print the median and the range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    sys.stdout.write(f"{name:45} {middle:8.3f} {unit:3} ({low:.3f} to {high:.3f}, n = {len(values)})\n")


if __name__ == "__main__":
    main()
