"""Request batching: calls with the same key are concatenated along dimension 0 into one run."""

import os
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Event, Lock, Semaphore
from typing import Any

import numpy as np

from digit_serving.errors import ServingError
from digit_serving.model_server.servable import Array

Run = Callable[[list[Array]], list[Array]]


class Batcher:
    """Merges concurrent calls, as TensorFlow Serving's BatchingParameters say.

    The first call of a batch leads it: its thread waits for further calls and runs the batch.

    Raises ServingError for invalid `allowed_batch_sizes`.
    """

    def __init__(self, parameters: Any) -> None:
        def value(name: str, default: int) -> int:
            return int(getattr(parameters, name).value) if parameters.HasField(name) else default

        self._max_size = value("max_batch_size", 1000)
        self._timeout = value("batch_timeout_micros", 0) / 1e6
        self._max_enqueued = value("max_enqueued_batches", 10)
        self._threads = Semaphore(value("num_batch_threads", os.cpu_count() or 1))
        self._sizes = list(parameters.allowed_batch_sizes)
        if self._sizes and (self._sizes != sorted(set(self._sizes)) or self._sizes[-1] != self._max_size):
            raise ServingError("allowed_batch_sizes must increase and end with max_batch_size")
        self._lock = Lock()
        self._open: dict[Hashable, _Batch] = {}
        self._enqueued: Counter[Hashable] = Counter()

    def run(self, key: Hashable, run: Run, inputs: list[Array]) -> list[Array]:
        """Return this call's rows of one `run` over the inputs of all calls in the batch.

        Raises ServingError if the inputs don't fit a batch, the queue is full, or the run fails.
        """
        size, future = self._count_rows(inputs), Future[list[Array]]()
        with self._lock:
            batch = self._open.get(key)
            is_leader = batch is None or batch.size + size > self._max_size
            if batch is None or is_leader:
                if self._enqueued[key] >= self._max_enqueued:
                    raise ServingError("the batching queue is full", "UNAVAILABLE")
                if batch is not None:
                    batch.full.set()
                batch = self._open[key] = _Batch()
                self._enqueued[key] += 1
            batch.size += size
            batch.tasks.append((inputs, future))
            if batch.size == self._max_size:
                batch.full.set()
        if is_leader:
            self._lead(key, batch, run)
        return future.result()

    def _count_rows(self, inputs: list[Array]) -> int:
        sizes = {len(array) if array.ndim else 0 for array in inputs}
        if len(sizes) != 1 or 0 in sizes:
            raise ServingError("batched inputs must have the same number of rows, and at least one")
        (size,) = sizes
        if size > self._max_size:
            raise ServingError(f"{size} rows exceed max_batch_size, {self._max_size}")
        return size

    def _lead(self, key: Hashable, batch: "_Batch", run: Run) -> None:
        batch.full.wait(self._timeout)
        with self._threads:  # the batch accepts calls while every thread is busy
            with self._lock:
                self._enqueued -= Counter([key])
                if self._open.get(key) is batch:
                    del self._open[key]
            try:
                for (_, future), rows in zip(batch.tasks, self._run_batch(batch, run), strict=True):
                    future.set_result(rows)
            except Exception as error:
                for _, future in batch.tasks:
                    future.set_exception(error)

    def _run_batch(self, batch: "_Batch", run: Run) -> list[list[Array]]:
        """Return the output rows of each task. Pad the batch to an allowed size with copies of a row."""
        total = next((size for size in self._sizes if size >= batch.size), batch.size)
        padding = [np.repeat(array[:1], total - batch.size, axis=0) for array in batch.tasks[-1][0]]
        columns = zip(*(inputs for inputs, _ in batch.tasks), padding, strict=True)
        outputs = run([np.concatenate(column) for column in columns])
        if any(output.ndim == 0 or len(output) != total for output in outputs):
            message = "batched outputs must have the inputs' size in dimension 0"
            raise ServingError(message, "FAILED_PRECONDITION")
        ends = np.cumsum([len(inputs[0]) for inputs, _ in batch.tasks])
        split = (np.split(output, ends)[:-1] for output in outputs)
        return [list(rows) for rows in zip(*split, strict=True)]


class _Batch:
    def __init__(self) -> None:
        self.size, self.full = 0, Event()
        self.tasks: list[tuple[list[Array], Future[list[Array]]]] = []
