"""Requests for the same tensors, merged along dimension 0 into one run."""

import os
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Event, Lock, Semaphore
from typing import Any

import numpy as np
from grpc import StatusCode

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.tensors import Array

Run = Callable[[list[Array]], list[Array]]


class _Batch:
    def __init__(self) -> None:
        self.size, self.full = 0, Event()
        self.tasks: list[tuple[list[Array], Future[list[Array]]]] = []


class Batcher:
    """Batches as a BatchingParameters message asks; the request that opens one runs it for the others."""

    def __init__(self, parameters: Any) -> None:
        def value(name: str, default: int) -> int:
            return int(getattr(parameters, name).value) if parameters.HasField(name) else default

        self._max_size = value("max_batch_size", 1000)
        self._timeout = value("batch_timeout_micros", 0) / 1e6
        self._max_enqueued = value("max_enqueued_batches", 10)
        self._threads = Semaphore(value("num_batch_threads", os.cpu_count() or 1))
        self._sizes = list(parameters.allowed_batch_sizes)
        if self._sizes and (self._sizes != sorted(set(self._sizes)) or self._sizes[-1] != self._max_size):
            raise ServingError("allowed_batch_sizes must be increasing, the last entry max_batch_size")
        self._lock = Lock()
        self._open: dict[Hashable, _Batch] = {}
        self._enqueued: Counter[Hashable] = Counter()

    def run(self, key: Hashable, run: Run, inputs: list[Array]) -> list[Array]:
        """The caller's share of one `run` over its inputs and those of others with the same key.

        Raises:
            ServingError: the inputs don't fit a batch, the queue is full, or the run failed.
        """
        size, future = self._rows(inputs), Future[list[Array]]()
        with self._lock:
            batch = self._open.get(key)
            leads = batch is None or batch.size + size > self._max_size
            if batch is None or leads:
                if self._enqueued[key] >= self._max_enqueued:
                    problem = "The batch scheduling queue to which this task was submitted is full"
                    raise ServingError(problem, StatusCode.UNAVAILABLE)
                if batch is not None:
                    batch.full.set()
                batch = self._open[key] = _Batch()
                self._enqueued[key] += 1
            batch.size += size
            batch.tasks.append((inputs, future))
            if batch.size == self._max_size:
                batch.full.set()
        if leads:
            self._lead(key, batch, run)
        return future.result()

    def _lead(self, key: Hashable, batch: _Batch, run: Run) -> None:
        batch.full.wait(self._timeout)
        with self._threads:  # others may join until a thread is free
            with self._lock:
                self._enqueued -= Counter([key])
                if self._open.get(key) is batch:
                    del self._open[key]
            try:
                for (_, future), share in zip(batch.tasks, self._shares(batch, run), strict=True):
                    future.set_result(share)
            except Exception as error:
                for _, future in batch.tasks:
                    future.set_exception(error)

    def _shares(self, batch: _Batch, run: Run) -> list[list[Array]]:
        total = next((size for size in self._sizes if size >= batch.size), batch.size)
        padding = [np.repeat(array[:1], total - batch.size, axis=0) for array in batch.tasks[-1][0]]
        columns = zip(*(inputs for inputs, _ in batch.tasks), padding, strict=True)
        outputs = run([np.concatenate(column) for column in columns])
        if any(output.ndim == 0 or len(output) != total for output in outputs):
            problem = "Batched output tensor's 0th dimension does not equal the sum of those of the inputs"
            raise ServingError(problem, StatusCode.FAILED_PRECONDITION)
        ends = np.cumsum([len(inputs[0]) for inputs, _ in batch.tasks])
        return [
            list(share) for share in zip(*(np.split(output, ends)[:-1] for output in outputs), strict=True)
        ]

    def _rows(self, inputs: list[Array]) -> int:
        if any(array.ndim == 0 for array in inputs):
            raise ServingError("Batching Run() input tensors must have at least one dimension")
        if len({len(array) for array in inputs}) != 1:
            raise ServingError("Batching Run() input tensors must have equal 0th-dimension size")
        if len(inputs[0]) > self._max_size:
            limit = f"is larger than maximum input batch size {self._max_size}"
            raise ServingError(f"Task size {len(inputs[0])} {limit}")
        return len(inputs[0])
