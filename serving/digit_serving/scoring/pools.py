"""Pools of workers that score batches: processes of this machine, or tasks on a Ray cluster."""

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Thread
from typing import Any

import pyarrow as pa

from digit_serving.scoring.results import ResultsFolder
from digit_serving.scoring.worker import Batch, Scorer, score_batch

_MIN_BATCH = 256
"""Images that fill a call."""
_BATCHES_PER_WORKER = 4
"""Batches that each worker gets at least, so that none waits long for the last one."""
_POLL_SECONDS = 1.0
_CONNECT_SECONDS = 10.0


class ScoringError(Exception):
    """The run can't start or go on. The message is one line for a terminal."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Pool of workers, of one CPU each. `submit` calls `score_batch` in one of them."""

    workers: int
    submit: Callable[[Scorer, ResultsFolder, pa.Table], "Future[Batch]"]

    def score(
        self, pending: pa.Table, batch_size: int, scorer: Scorer, results: ResultsFolder
    ) -> Iterator[Batch | None]:
        """Score the images and yield each batch when its file is written, in any order; None each second.

        Two batches for each worker are in flight, so that none waits for the next one.
        """
        fair_size = -(-len(pending) // (self.workers * _BATCHES_PER_WORKER))
        size = max(1, min(batch_size, max(fair_size, _MIN_BATCH)))
        starts = iter(range(0, len(pending), size))
        running: set[Future[Batch]] = set()
        while True:
            for start in islice(starts, 2 * self.workers - len(running)):
                # A copy: pickling a slice of a table would send all of the table.
                images = pending.take(list(range(start, min(start + size, len(pending)))))
                running.add(self.submit(scorer, results, images))
            if not running:
                return
            done, running = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
            yield from (future.result() for future in done)
            yield None


@contextmanager
def processes(workers: int | None) -> Iterator[Pool]:
    """Start processes, by default one for each CPU, which end with the block, or with this process.

    Raise ScoringError if one dies.
    """
    workers = workers or os.cpu_count() or 1
    # gRPC's threads don't survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_prepare_process) as executor:
        try:
            yield Pool(workers, lambda *arguments: executor.submit(score_batch, *arguments))
        except BrokenProcessPool as error:
            raise ScoringError("a worker process died; run the command again to go on") from error
        except BaseException:
            # A batch may take a minute. Its file appears whole or not at all.
            for process in multiprocessing.active_children():
                process.terminate()
            raise


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


@contextmanager
def ray_tasks(address: str, workers: int | None) -> Iterator[Pool]:
    """Connect to the Ray cluster at an address, whose CPUs each run a task by default.

    Ray repeats a task three times whose process dies. Raise ScoringError if there is no Ray, no cluster
    answers, or a task fails.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ScoringError(
            "`digits score --ray` needs the module ray; install it in a clone of digit-serving: "
            "pip install '.[ray]'"
        ) from error
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        # Ray itself would try for ten minutes.
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ScoringError(f"no Ray cluster at {address}: {_one_line(error)}") from error
    try:
        task: Any = ray.remote(score_batch)
        cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        yield Pool(workers or max(1, cpus), lambda *arguments: task.remote(*arguments).future())
    except ray.exceptions.RayError as error:
        # Ray surrounds the error of a task with several pages.
        raise ScoringError(_one_line(getattr(error, "cause", error))) from error
    finally:
        ray.shutdown()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
