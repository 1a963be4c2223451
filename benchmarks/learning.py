"""Cost of kept answers and of a shadow version, and the rows a second that stores of feedback take.

Needs Linux and a published model in models/digits; see `digits train`. Run as python -m benchmarks.learning
[postgresql://USER@HOST/DATABASE]; the rows stay in that database.
"""

import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx

from benchmarks.cost import FLAGS, cost, print_row
from benchmarks.service import service
from benchmarks.startup import URL, memory
from digit_core import images
from digit_core.images import to_png
from digit_serving.feedback.records import Record
from digit_serving.feedback.store import FeedbackStore

ROUNDS = 3
REQUESTS = 2000
STORE_SECONDS = 3.0
BATCHES = (1, 50)
"""Rows of a transaction."""
MODELS_CONFIG = """
model_config_list {{
  config {{
    name: "digits"
    base_path: "{models}"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: 2 }}
  }}
}}
"""


def main() -> None:
    """Print medians of a gateway with and without these features, measured in turn, and of each store."""
    drawing = to_png(images.normalise(images.decode(Path("docs/five.jpg").read_bytes())))
    with TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        newest = max(Path("models/digits").glob("[0-9]*"), key=lambda version: int(version.name))
        for version in ("1", "2"):
            shutil.copytree(newest, models / version)
        config = Path(folder) / "models.config"
        config.write_text(MODELS_CONFIG.format(models=models))
        flags = [
            *FLAGS,
            f"--model_config_file={config}",
            "--allow_version_labels_for_unavailable_models=true",
        ]
        sqlite = f"sqlite:///{folder}/feedback.db"
        shadow = {"DIGITS_DEFAULT_LABEL": "stable", "DIGITS_SHADOW_LABEL": "canary"}
        cases = {
            "without": {},
            "answers kept": {"DIGITS_FEEDBACK_OPEN": "1", "DIGITS_FEEDBACK": sqlite},
            "shadow of 10 %": {**shadow, "DIGITS_SHADOW_SHARE": "0.1"},
            "shadow of 100 %": {**shadow, "DIGITS_SHADOW_SHARE": "1"},
        }
        measured: dict[str, list[tuple[float, ...]]] = {name: [] for name in cases}
        for _ in range(ROUNDS):
            for name, settings in cases.items():
                measured[name].append(measure(models, flags, settings, drawing))
        print_row("one caller, then eight", "median ms", "p99 ms", "gateway CPU ms", "server CPU ms", "MB")
        for name, rounds in measured.items():
            print_row(name, *(f"{median(figures):.3f}" for figures in zip(*rounds, strict=True)))
        print_row("rows a second, a transaction has", *map(str, BATCHES))
        for url in (sqlite, *sys.argv[1:]):
            rates = [rows_per_second(url, drawing, batch) for batch in BATCHES]
            print_row(url.partition(":")[0], *(f"{rate:,.0f}" for rate in rates))


def measure(models: Path, flags: list[str], settings: Mapping[str, str], body: bytes) -> tuple[float, ...]:
    """Return five figures of a gateway and its model server.

    Of one caller's requests the median and the 99th percentile in ms; of eight callers' requests the CPU ms
    of gateway and model server; then the gateway's memory in MB.
    """
    with service(models, flags, settings) as running:
        with httpx.Client(base_url=URL, headers={"Content-Type": "image/png"}, timeout=60) as http:
            durations = []
            for _ in range(REQUESTS):
                started = time.monotonic()
                http.post("/v1/predict", content=body).raise_for_status()
                durations.append(time.monotonic() - started)
        gateway = running.gateway.pid
        costs = cost(gateway, running.model_server.pid, body, "image/png", 1, REQUESTS)
        milliseconds = (1000 * each for each in (median(durations), quantiles(durations, n=100)[98], *costs))
        return *milliseconds, memory(gateway)


def rows_per_second(url: str, picture: bytes, batch: int) -> float:
    """Return the labelled rows a second that one writer saves, `batch` in a transaction."""
    saved = 0
    with closing(FeedbackStore(url)) as store:
        started = time.monotonic()
        while time.monotonic() - started < STORE_SECONDS:
            store.save([make_record(picture) for _ in range(batch)])
            saved += batch
        return saved / (time.monotonic() - started)


def make_record(picture: bytes) -> Record:
    """Return a record of a request of its own."""
    request_id, now = uuid4().hex, datetime.now(UTC)
    return Record(
        request_id=request_id,
        index=0,
        position=0,
        kind="predict",
        model="digits",
        version=1,
        predicted="5",
        confidence=0.9,
        is_digit=0.9,
        input=picture,
        answered_at=now,
        label="5",
        labelled_at=now,
        source="feedback",
    )


if __name__ == "__main__":
    main()
