"""Soak test: minutes at 70 % of capacity while versions are published and processes are killed.

The load comes through the client, with its retries, from the same machine. Needs Linux and a published model
in models/digits; see `digits train`. Run as python -m benchmarks.load.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.load.callers import Answer, send_load
from benchmarks.load.memory import Memory
from benchmarks.service import Service, service
from digit_core import images
from digit_core.artifact.versions import list_versions
from digit_core.images import to_png

# Load as a share of the capacity.
LOAD_SHARE = 0.7
KEPT_VERSIONS = 3
# Seconds between two events of a kind.
PUBLISH, KILL_WORKER, KILL_MODEL_SERVER = 20.0, 33.0, 190.0
# Seconds before and after a kill that are left out of the percentiles between kills.
RECOVERY = 6.0


def main() -> None:
    """Print latencies and errors by minute, and the growth of memory."""
    minutes = _minutes()
    image = to_png(images.normalise(images.decode(Path("docs/five.jpg").read_bytes())))
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "digits"
        newest, *_ = list_versions(Path("models/digits")).values()
        shutil.copytree(newest.path, models / "1")
        with service(models) as running:
            with send_load(image, 5) as received:
                time.sleep(15)
            capacity = received.rate()
            _print(f"capacity, with clients on the same machine: {capacity:,.0f} images per second")
            started = time.monotonic()
            with send_load(image, 5, LOAD_SHARE * capacity) as received:
                kills, gateway, model_server = _disturb(running, 60 * minutes)
    _report(received.answers, started, kills)
    for name, memory in (("surviving worker of the gateway", gateway), ("model servers", model_server)):
        slope, error = memory.slope()
        _print(f"{name}: {memory.last():.0f} MB at the end, {slope:+.2f} ± {2 * error:.2f} MB per minute")


def _minutes() -> float:
    parser = argparse.ArgumentParser(description="Soak test with new versions and killed processes.")
    parser.add_argument("--minutes", type=float, default=10, help="duration of the load")
    minutes: float = parser.parse_args().minutes
    return minutes


def _disturb(running: Service, seconds: float) -> tuple[list[float], Memory, Memory]:
    """Publish versions and kill processes for `seconds`.

    Return the times of the kills, and the memory of the gateway's oldest worker and of the model servers.
    """
    kills: list[float] = []
    gateway, model_server = Memory(), Memory()
    survivor = running.workers()[0]

    def kill(action: Callable[[], None]) -> None:
        kills.append(time.monotonic())
        action()

    plan: list[tuple[float, Callable[[], None]]] = [
        (PUBLISH, lambda: _publish(running.models)),
        (KILL_WORKER, lambda: kill(running.kill_worker)),
        (KILL_MODEL_SERVER, lambda: kill(running.kill_model_server)),
    ]
    started = time.monotonic()
    due = [started + interval for interval, _ in plan]
    while time.monotonic() < started + seconds:
        gateway.sample(survivor)
        model_server.sample(running.model_server.pid)
        for number, (interval, act) in enumerate(plan):
            if time.monotonic() > due[number]:
                due[number] += interval
                act()
        time.sleep(1)
    return kills, gateway, model_server


def _publish(models: Path) -> None:
    newest, *older = list_versions(models).values()
    new = shutil.copytree(newest.path, models / ".new")
    new.rename(models / str(newest.number + 1))
    for old in older[KEPT_VERSIONS - 1 :]:
        old.remove()


def _report(answers: list[Answer], started: float, kills: list[float]) -> None:
    _print(
        f"{'minute':>6} {'images':>8} {'errors':>6} {'p50 ms':>8} {'p99 ms':>8} {'p99 ms between kills':>20}"
    )
    for minute in range(int(max((answer.started - started) / 60 for answer in answers)) + 1):
        in_minute = [answer for answer in answers if int((answer.started - started) / 60) == minute]
        between_kills = [
            answer
            for answer in in_minute
            if not any(kill - RECOVERY < answer.started < kill + RECOVERY for kill in kills)
        ]
        all_ms, between_ms = (
            np.array([1000 * answer.seconds for answer in selected])
            for selected in (in_minute, between_kills)
        )
        failed = sum(answer.error is not None for answer in in_minute)
        _print(
            f"{minute + 1:6} {len(in_minute):8,} {failed:6} {np.median(all_ms):8.1f} "
            f"{np.percentile(all_ms, 99):8.1f} {np.percentile(between_ms, 99):18.1f}"
        )
    errors = {answer.error for answer in answers if answer.error}
    versions = {answer.version for answer in answers if answer.version}
    _print(
        f"{len(answers):,} images, {sum(answer.error is not None for answer in answers)} errors "
        f"{sorted(errors)}, {len(versions)} versions answered, {len(kills)} processes killed, "
        f"slowest answer after {max(answer.seconds for answer in answers):.1f} s"
    )


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
