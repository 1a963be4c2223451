"""Minutes at 70 % of what the service can do, while versions come and go and its processes are killed.

Callers use the client, with its retries; they share the machine. Needs Linux and a published model in
models/digits; see `digits train`. Run as python -m benchmarks.load.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.load.callers import Answer, calling
from benchmarks.load.memory import Memory
from benchmarks.service import Service, service
from digit_client import images
from digit_client.images import to_png
from digit_serving.releases.versions import published

SHARE = 0.7
KEPT = 3
# Seconds between two of the same kind.
PUBLISH, KILL_WORKER, KILL_MODEL_SERVER = 20.0, 33.0, 190.0
# Until callers have got over a process that was killed.
RECOVERY = 6.0


def main() -> None:
    """Print what came of it, minute by minute."""
    minutes = _minutes()
    image = to_png(images.normalise(images.decode(Path("docs/five.jpg").read_bytes())))
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "digits"
        newest, *_ = published(Path("models/digits")).values()
        shutil.copytree(newest.path, models / "1")
        with service(models) as running:
            with calling(image, 5) as crowd:
                time.sleep(15)
            capacity = crowd.rate()
            _say(f"capacity, with its callers on the same machine: {capacity:,.0f} images a second")
            started = time.monotonic()
            with calling(image, 5, SHARE * capacity) as crowd:
                kills, gateway, model_server = _molest(running, 60 * minutes)
    _report(crowd.answers, started, kills)
    for name, memory in (("gateway's worker that was not killed", gateway), ("model servers", model_server)):
        slope, error = memory.slope()
        _say(f"{name}: {memory.last():.0f} MB at the end, {slope:+.2f} ± {2 * error:.2f} MB a minute")


def _minutes() -> float:
    parser = argparse.ArgumentParser(description="Load while the service is molested.")
    parser.add_argument("--minutes", type=float, default=10)
    minutes: float = parser.parse_args().minutes
    return minutes


def _molest(running: Service, seconds: float) -> tuple[list[float], Memory, Memory]:
    """When something was killed, and what memory the survivors had."""
    kills: list[float] = []
    gateway, model_server = Memory(), Memory()
    survivor = running.workers()[0]

    def kill(what: Callable[[], None]) -> None:
        kills.append(time.monotonic())
        what()

    plan: list[tuple[float, Callable[[], None]]] = [
        (PUBLISH, lambda: _publish(running.models)),
        (KILL_WORKER, lambda: kill(running.kill_worker)),
        (KILL_MODEL_SERVER, lambda: kill(running.kill_model_server)),
    ]
    started = time.monotonic()
    due = [started + pause for pause, _ in plan]
    while time.monotonic() < started + seconds:
        gateway.sample(survivor)
        model_server.sample(running.model_server.pid)
        for number, (pause, act) in enumerate(plan):
            if time.monotonic() > due[number]:
                due[number] += pause
                act()
        time.sleep(1)
    return kills, gateway, model_server


def _publish(models: Path) -> None:
    newest, *older = published(models).values()
    new = shutil.copytree(newest.path, models / ".new")
    new.rename(models / str(newest.number + 1))
    for old in older[KEPT - 1 :]:
        old.remove()


def _report(answers: list[Answer], started: float, kills: list[float]) -> None:
    _say(
        f"{'minute':>6} {'images':>8} {'errors':>6} {'p50 ms':>8} {'p99 ms':>8} {'p99 ms between kills':>20}"
    )
    for minute in range(int(max((answer.started - started) / 60 for answer in answers)) + 1):
        here = [answer for answer in answers if int((answer.started - started) / 60) == minute]
        calm = [
            answer
            for answer in here
            if not any(kill - RECOVERY < answer.started < kill + RECOVERY for kill in kills)
        ]
        all_ms, calm_ms = (np.array([1000 * each.seconds for each in some]) for some in (here, calm))
        errors = sum(answer.error is not None for answer in here)
        _say(
            f"{minute + 1:6} {len(here):8,} {errors:6} {np.median(all_ms):8.1f} "
            f"{np.percentile(all_ms, 99):8.1f} {np.percentile(calm_ms, 99):18.1f}"
        )
    wrong = {answer.error for answer in answers if answer.error}
    versions = {answer.version for answer in answers if answer.version}
    _say(
        f"{len(answers):,} images, {sum(answer.error is not None for answer in answers)} errors "
        f"{sorted(wrong)}, {len(versions)} versions answered, {len(kills)} processes killed, "
        f"the slowest answer after {max(answer.seconds for answer in answers):.1f} s"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
