"""Workers: the Scorer makes rows of pictures, in processes of this machine or in tasks on a Ray cluster."""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from operator import itemgetter
from threading import Thread
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from digit_client import ModelServerClient
from digit_core.errors import DigitError
from digit_core.results import Prediction, Reading
from digit_serving.errors import DigitServingError, needs_extra
from digit_serving.scoring.files import open_folder
from digit_serving.scoring.results import (
    FINAL_CODES,
    NOT_FOUND,
    PREDICTIONS,
    READINGS,
    UNREADABLE,
    ResultsFolder,
)

_CALLS = 2
"""Calls at a time: images are read and prepared for one while the model server answers the other."""
_DOWNLOADS = 32
"""Images of an object store that are read at a time."""
_MIN_BATCH = 256
"""Images that fill a call."""
_BATCHES_PER_WORKER = 4
"""Batches that each worker gets at least, so that none waits long for the last one."""
_PREDICTION_COLUMNS = [
    "label",
    "predicted_labels",
    "digit",
    "refusal",
    "confidence",
    "is_digit",
    "probabilities",
]
_POLL_SECONDS = 1.0
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Scorer:
    """Function of a table of images, in the columns of `files.LISTING`, to a table of their rows.

    The images lie on the filesystem of `source`, a path or URL; `target` is the model server's gRPC address,
    `timeout` in seconds bounds a call with all its retries. `version` is in every row. With `read` the rows
    are readings, in the columns of `results.READINGS`, else predictions, in those of `results.PREDICTIONS`.

    Errors of an image, of reading it or of the model server are rows; none is raised. Few images are in
    memory. A Scorer can be pickled: pools and Spark send it to their workers.
    """

    source: str
    target: str
    model: str
    version: int
    read: bool = False
    timeout: float = 60.0

    def __call__(self, images: pa.Table) -> pa.Table:
        """Return a row for each image, in their order."""
        listed = images.to_pylist()
        client = _connect(self.target, self.model, self.timeout)
        ask = client.iter_read if self.read else client.iter_predict
        sources = self._open([image["path"] for image in listed])
        answers = sorted(ask(sources, concurrency=_CALLS, version=self.version), key=itemgetter(0))
        constant = {"model": self.model, "version": self.version}
        rows = [{**listed[index], **constant, **_describe(outcome)} for index, outcome in answers]
        return pa.Table.from_pylist(rows, READINGS if self.read else PREDICTIONS)

    def _open(self, paths: Sequence[str]) -> Iterator[Any]:
        """Yield each local path, which the client reads, and of other images the bytes or the OSError."""
        filesystem, _ = open_folder(self.source)
        if isinstance(filesystem, LocalFileSystem):
            yield from paths
            return
        for start in range(0, len(paths), _DOWNLOADS):
            # Concurrent. Unlike `cat`, it takes brackets and asterisks as parts of names.
            group = paths[start : start + _DOWNLOADS]
            for content in filesystem.cat_ranges(group, None, None, on_error="return"):
                yield content if isinstance(content, (bytes, OSError)) else OSError(str(content))


@dataclass(frozen=True, slots=True)
class Batch:
    """File of rows that a worker has written.

    `counts` has the number of rows by error code, None for answers; `error` is one of the retryable errors.
    """

    file: str
    counts: Counter[str | None]
    error: str | None
    seconds: float


def score_batch(scorer: Scorer, results: ResultsFolder, images: pa.Table) -> Batch:
    """Score the images and write their file: no row travels. Raise OSError if they can't be written."""
    started = time.monotonic()
    rows = scorer(images)
    file = results.write(rows)
    outcomes = zip(rows["error_code"].to_pylist(), rows["error"].to_pylist(), strict=True)
    error = next((error for code, error in outcomes if code not in {None, *FINAL_CODES}), None)
    return Batch(file, Counter(rows["error_code"].to_pylist()), error, time.monotonic() - started)


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

    Ray repeats a task three times whose process dies. Raise DigitServingError if there is no Ray, no cluster
    answers, or a task fails.
    """
    with needs_extra("ray"):
        import ray
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        # Ray itself would try for ten minutes.
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise DigitServingError(f"no Ray cluster at {address}: {_one_line(error)}") from error
    try:
        task: Any = ray.remote(score_batch)
        cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        yield Pool(workers or max(1, cpus), lambda *arguments: task.remote(*arguments).future())
    except ray.exceptions.RayError as error:
        # Ray surrounds the error of a task with several pages.
        raise DigitServingError(_one_line(getattr(error, "cause", error))) from error
    finally:
        ray.shutdown()


@cache
def _connect(target: str, model: str, timeout: float) -> ModelServerClient:
    """Return this process's client, which keeps its connection and the task card."""
    return ModelServerClient(target, name=model, timeout=timeout)


def _describe(outcome: Prediction | Reading | DigitError | OSError) -> dict[str, Any]:
    """Return the outcome's columns; the others are null."""
    match outcome:
        case Prediction():
            return {name: getattr(outcome, name) for name in _PREDICTION_COLUMNS}
        case Reading():
            lines = [_line(line) for line in outcome.lines]
            return {"text": outcome.text, "refusal": outcome.refusal, "lines": lines}
        case DigitError():
            return {"error_code": outcome.code, "error": outcome.message}
        case FileNotFoundError():
            return {"error_code": NOT_FOUND, "error": "the file does not exist"}
        case _:
            return {"error_code": UNREADABLE, "error": f"the file can't be read: {outcome}"}


def _line(line: Any) -> dict[str, Any]:
    digits = [{**asdict(digit), "box": _box(digit.box)} for digit in line.digits]
    return {"text": line.text, "box": _box(line.box), "digits": digits}


def _box(box: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(("left", "top", "width", "height"), box, strict=True))


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
