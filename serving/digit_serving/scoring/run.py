"""Scoring over Ray Data: a pool of actors, each of which scores batches of images and writes their files."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from digit_serving.scoring.results import FINAL_CODES, READ_CODES, Format, ResultsFolder
from digit_serving.scoring.worker import Scorer

_MIN_BATCH = 256
"""Images that fill a call."""
_BATCHES_PER_WORKER = 4
"""Batches that each worker gets at least, so that none waits long for the last one."""
_MAX_DEATHS = 3
"""Repetitions of a batch whose worker died: a picture that kills its worker must not do so for ever."""
_OBJECT_STORE_BYTES = 256 * 2**20
"""Ray's shared memory. It holds a listing's batches, no images."""
_POLL_SECONDS = 1.0

_COUNTS = pa.schema(
    [
        pa.field("failure", pa.string()),
        pa.field("file", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("error_code", pa.string()),
        pa.field("count", pa.int64()),
        pa.field("error", pa.string()),
    ]
)
"""What a worker returns for a batch: a row for each error code with the number of its pictures and one of its
errors; or one row with the failure of the whole batch."""


class ScoringError(Exception):
    """The run can't go on. The message is one line for a terminal."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A file of rows that a worker has written: number of rows by error code, None for answers."""

    file: str
    counts: Counter[str | None]
    seconds: float


@contextmanager
def cluster(address: str | None, workers: int | None) -> Iterator[None]:
    """Connect to the Ray cluster at an address, or start one on this machine with a CPU for each worker.

    Raise ScoringError if no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address, **quiet)
        else:
            ray.init(
                "local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ScoringError(f"no Ray cluster at {address or 'this machine'}: {_last_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def score(
    pending: pa.Table,
    scorer: Scorer,
    results: ResultsFolder,
    file_format: Format,
    *,
    workers: int | None,
    batch_size: int,
    check: Callable[[], None],
) -> Iterator[Batch]:
    """Score the images and yield each batch when its file is written, in any order.

    `workers` is the number of actors, of one CPU each (default: the cluster's CPUs). `check` is called each
    second; an error of it ends the iteration. Raise ScoringError if the model server does not answer for most
    of a batch, a file can't be written, or a worker dies again and again.
    """
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    workers = workers or max(1, int(resources.get("CPU", 1)))
    fair_size = -(-len(pending) // (workers * _BATCHES_PER_WORKER))
    size = max(1, min(batch_size, max(fair_size, _MIN_BATCH)))
    # Ray Client can't iterate over datasets, and Ray logs to the terminal of a process that does.
    actor: Any = ray.remote(num_cpus=0)(_Stream)
    stream = actor.remote(pending, size, workers, scorer, results, file_format)
    try:
        while (counts := _wait_for(stream.next.remote(), check)) is not None:
            yield _to_batch(counts)
    except ray.exceptions.RayError as error:
        raise ScoringError(_explain(error)) from error


class _Stream:
    """Ray actor that runs the dataset."""

    def __init__(
        self,
        pending: pa.Table,
        size: int,
        workers: int,
        scorer: Scorer,
        results: ResultsFolder,
        file_format: Format,
    ) -> None:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        batches = [pending.slice(start, size).combine_chunks() for start in range(0, len(pending), size)]
        dataset = ray.data.from_arrow(batches).map_batches(
            _BatchScorer,
            fn_constructor_args=(scorer, results, file_format),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=_MAX_DEATHS,
        )
        self._counts = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))

    def next(self) -> pa.Table | None:
        """Return the counts of the next batch, None at the end."""
        return next(self._counts, None)


class _BatchScorer:
    """Ray actor that scores a batch, writes its file, and returns counts: Ray carries no rows."""

    def __init__(self, scorer: Scorer, results: ResultsFolder, file_format: Format) -> None:
        self._scorer, self._results, self._format = scorer, results, file_format

    def __call__(self, images: pa.Table) -> pa.Table:
        started = time.monotonic()
        try:
            rows = self._scorer(images)
            file = self._results.write(rows, self._format)
        except Exception as error:
            # Ray would surround the error with several pages.
            return pa.Table.from_pylist([{"failure": f"{type(error).__name__}: {error}"}], _COUNTS)
        seconds = time.monotonic() - started
        groups = rows.group_by("error_code").aggregate([([], "count_all"), ("error", "min")])
        return pa.Table.from_pylist(
            [
                {
                    "file": file,
                    "seconds": seconds,
                    "error_code": group["error_code"],
                    "count": group["count_all"],
                    "error": group["error_min"],
                }
                for group in groups.to_pylist()
            ],
            _COUNTS,
        )


def _wait_for(reference: Any, check: Callable[[], None]) -> Any:
    while not ray.wait([reference], timeout=_POLL_SECONDS)[0]:
        check()
    return ray.get(reference)


def _to_batch(counts: pa.Table) -> Batch:
    """Return the batch's counts. Raise ScoringError if it failed as a whole, or most calls for it did."""
    rows = counts.to_pylist()
    if rows[0]["failure"]:
        raise ScoringError(rows[0]["failure"])
    failed = [row for row in rows if row["error_code"] not in {None, *FINAL_CODES, *READ_CODES}]
    if 2 * sum(row["count"] for row in failed) > sum(row["count"] for row in rows):
        raise ScoringError(f"{failed[0]['error']}; run the command again to go on")
    counts_by_code = Counter({row["error_code"]: row["count"] for row in rows})
    return Batch(rows[0]["file"], counts_by_code, rows[0]["seconds"])


def _explain(error: ray.exceptions.RayError) -> str:
    """Return the last line of the error, which ends with the error that a worker has raised."""
    reason = _last_line(error)
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error, ray.exceptions.RayActorError):
        return f"a worker died {_MAX_DEATHS + 1} times over the same pictures: {reason}"
    return reason


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]
