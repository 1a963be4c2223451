"""Pools that score batches of images: processes of this machine, or tasks on a Ray cluster."""

import itertools
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pyarrow as pa

from digit_core.tables import READ_CODES
from digit_serving.errors import DigitServingError, needs_extra
from digit_serving.scoring.rows import FINAL_CODES, ResultsFolder
from digit_serving.scoring.scorer import Scorer

_SMALLEST_BATCH = 32
_BATCHES_PER_WORKER = 4
"""Batches that each worker gets at least, so that none waits long for the last one."""
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Written file of rows: the number of rows by error code, None for answers, and one retryable error."""

    counts: Counter[str | None]
    error: str | None
    seconds: float

    def check(self) -> None:
        """Raise DigitServingError if most calls failed."""
        failed = self.counts.keys() - {None, *FINAL_CODES, *READ_CODES}
        if 2 * sum(self.counts[code] for code in failed) > self.counts.total():
            raise DigitServingError(f"{self.error}; run the command again to go on")


def score_batch(scorer: Scorer, results: ResultsFolder, images: pa.Table) -> Batch:
    """Score the images and write their file: no row travels. Raise OSError if they can't be written."""
    started = time.monotonic()
    rows = scorer(images)
    results.write(rows)
    codes = rows["error_code"].to_pylist()
    errors = zip(codes, rows["error"].to_pylist(), strict=True)
    retryable = next((error for code, error in errors if code not in {None, *FINAL_CODES}), None)
    return Batch(Counter(codes), retryable, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Pool:
    """Pool of workers, of one CPU each. `submit` calls `score_batch` in one of them."""

    workers: int
    submit: Callable[[Scorer, ResultsFolder, pa.Table], "Future[Batch]"]

    def score(
        self, images: pa.Table, batch_size: int, scorer: Scorer, results: ResultsFolder
    ) -> Iterator[Batch]:
        """Score the images and yield each batch when its file is written, in any order."""
        share = -(-len(images) // (self.workers * _BATCHES_PER_WORKER))
        size = min(batch_size, max(_SMALLEST_BATCH, share))
        starts = iter(range(0, len(images), size))
        running: set[Future[Batch]] = set()
        while True:
            # Two batches for each worker are in flight, so that none waits for the next one.
            for start in itertools.islice(starts, 2 * self.workers - len(running)):
                # A copy: pickling a slice of a table would send all of the table.
                batch = images.take(list(range(start, min(start + size, len(images)))))
                running.add(self.submit(scorer, results, batch))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


@contextmanager
def processes(workers: int | None) -> Iterator[Pool]:
    """Start processes, by default one for each CPU, which end with the block, or with this process.

    Raise DigitServingError if one dies.
    """
    workers = workers or os.cpu_count() or 1
    # gRPC's threads don't survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_prepare_process) as executor:
        try:
            yield Pool(workers, lambda *arguments: executor.submit(score_batch, *arguments))
        except BrokenProcessPool as error:
            raise DigitServingError("a worker process died; run the command again to go on") from error
        except BaseException:
            # A batch may take a minute. Its file appears whole or not at all.
            for process in multiprocessing.active_children():
                process.terminate()
            raise


@contextmanager
def ray_tasks(address: str, workers: int | None) -> Iterator[Pool]:
    """Connect to the Ray cluster at an address, whose CPUs each run a task by default.

    Ray repeats a task up to three times if its process dies. Raise DigitServingError if there is no Ray, no
    cluster answers, or a task fails.
    """
    with needs_extra("ray"):
        import ray
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        # Ray itself would try for ten minutes.
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise DigitServingError(f"there is no Ray cluster at {address}: {_one_line(error)}") from error
    try:
        task: Any = ray.remote(score_batch)
        cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        yield Pool(workers or max(1, cpus), lambda *arguments: task.remote(*arguments).future())
    except ray.exceptions.RayError as error:
        # Ray surrounds the error of a task with several pages.
        raise DigitServingError(_one_line(getattr(error, "cause", error))) from error
    finally:
        ray.shutdown()


def _prepare_process() -> None:
    # A terminal sends Ctrl-C to all processes; the parent then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    """Exit when the parent has died: a worker of a killed executor would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
