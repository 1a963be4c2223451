"""Answer keeper: writes a worker's answers in the background, and feedback on any worker's answers."""

import asyncio
import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.feedback_table import StoreError
from digit_core.artifact.task_card import NO_CLASS, TaskCard
from digit_core.recognition import to_pixels
from digit_core.results import Prediction, Reading
from digit_serving.feedback.records import Record
from digit_serving.feedback.store import FeedbackStore
from digit_serving.gateway.body import Body
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.errors import FeedbackUnavailableError
from digit_serving.gateway.observe import Metrics
from digit_serving.gateway.request import Answer, RequestContext
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import in_share

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Limits:
    """Limits of keeping: times are in seconds."""

    queued_bytes: int = 32 * 2**20
    """Pictures that wait for the thread. Further answers are dropped."""
    kept_inputs: int = 10_000
    """Inputs that may get feedback, of all gateways with the same store. The oldest are deleted first."""
    sure: float = 0.9
    """Confidence from which on an answer is no sample."""
    batch: float = 0.1
    """Time in which answers gather for one transaction."""
    expiry: float = 1.0
    """Least time between two deletions of expired answers."""
    idle: float = 10.0
    """Longest time between two deletions of expired answers."""
    find: float = 0.5
    """Longest wait for an answer that another worker is about to write."""
    find_interval: float = 0.05
    call: float = 2.0
    """Longest wait for the store."""
    threads: int = 2
    """Threads that call the store: one that hangs must not delay other work in threads."""
    retry: float = 1.0
    """Time between two attempts to open the store, which take some 10 ms."""
    close: float = 5.0
    """Longest wait for the thread at the end."""


_LIMITS = _Limits()


class _LazyStore:
    """Store that is opened at its first use, and anew after a failure, at most once a second.

    A removed file needs a new opening. Uses until then fail at once.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._next_attempt = 0.0
        self._store: FeedbackStore | None = None

    def use(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        """Call the function with the open store. Raise StoreError."""
        with self._lock:
            if self._store is None:
                if time.monotonic() < self._next_attempt:
                    raise StoreError("the database failed within the last second")
                self._next_attempt = time.monotonic() + _LIMITS.retry
                self._store = FeedbackStore(self._url)
            store = self._store
        try:
            return function(store)
        except StoreError:
            with self._lock:
                if self._store is store:
                    self._store = None
            store.close()
            raise

    def close(self) -> None:
        if self._store:
            self._store.close()


@dataclass(frozen=True, slots=True)
class _Queued:
    """Answers of a request; by index, `pictures` without an input, and `originals`, pictures as sent."""

    template: Record
    """What the records have in common."""
    task: TaskCard
    answers: Sequence[Answer[Prediction] | Answer[Reading]]
    pictures: Mapping[int, bytes | NDArray[Any]]
    originals: Mapping[int, bytes]

    @property
    def count(self) -> int:
        """Number of records."""
        return sum(len(answer.inputs or ()) for answer in self.answers) + len(self.pictures)

    @property
    def size(self) -> int:
        """Bytes of all pictures."""
        rows = sum(row.nbytes for answer in self.answers for row in answer.inputs or ())
        pictures = (*self.pictures.values(), *self.originals.values())
        return rows + sum(len(each) if isinstance(each, bytes) else each.nbytes for each in pictures)

    def records(self) -> Iterator[Record]:
        """Yield a record for each input: of a prediction, of each digit, or of the whole picture if empty."""
        for answer in self.answers:
            index, result, original = answer.index, answer.result, self.originals.get(answer.index)
            record = dataclasses.replace(self.template, index=index, original=original)
            inputs = [images.to_png(to_pixels(row, self.task)) for row in answer.inputs or ()]
            if isinstance(result, Prediction):
                yield dataclasses.replace(
                    record,
                    predicted=NO_CLASS if result.label is None else result.label,
                    confidence=result.confidence,
                    is_digit=result.is_digit,
                    input=inputs[0],
                )
                continue
            if not inputs:
                whole = _whole_input(self.pictures[index], self.task)
                yield dataclasses.replace(record, input=images.to_png(whole))
            for position, (digit, png) in enumerate(zip(result.digits, inputs, strict=True)):
                yield dataclasses.replace(
                    record,
                    position=position,
                    predicted=str(digit.digit),
                    confidence=digit.confidence,
                    input=png,
                    # One copy of the picture is enough for all of its digits.
                    original=None if position else original,
                )


class AnswerKeeper:
    """Keeps the worker's answers for a while, in the background, and stores feedback on any worker's answers.

    A sample of unsure answers is stored, too, without labels.

    Call `start` in the process that serves, `close` after its last request. Keeping never blocks and never
    raises: answers that can't be kept are counted. While the store can't be opened, later uses try again.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._seconds = settings.feedback_keep
        self._keeps_originals = settings.feedback_originals
        self._sample_share = settings.feedback_sample
        self._metrics = metrics
        self._answers: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        # Each counter has one thread that writes it, so that neither needs a lock.
        self._queued_bytes = self._written_bytes = 0
        self.is_available = True
        """False while answers or feedback can't be written, as of the latest attempt."""
        self._closing = threading.Event()
        self._store = _LazyStore(settings.feedback)
        self._writer = threading.Thread(target=self._write, name="answers", daemon=True)
        self._executor = ThreadPoolExecutor(_LIMITS.threads, "feedback")

    def start(self) -> None:
        """Start the thread, which writes the answers."""
        self._answers.put(None)
        self._writer.start()

    def close(self) -> None:
        """Write the answers in the queue, within `_LIMITS.close` seconds, and close the store."""
        self._closing.set()
        self._answers.put(None)
        self._writer.join(_LIMITS.close)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    def keep(
        self,
        context: RequestContext,
        answers: Sequence[Answer[Prediction]] | Sequence[Answer[Reading]],
        task: TaskCard,
        body: Body,
    ) -> None:
        """Queue the answers, unless too many pictures are in the queue; the thread makes records of them."""
        if any(answer.inputs is None for answer in answers):
            self._metrics.feedback_dropped.inc(len(answers))
            return
        files = enumerate(body.content if self._keeps_originals else ())
        queued = _Queued(
            _template(context, answers[0].result.model_version),
            task,
            # Copies, because an input may be a part of an array of many, which would stay in memory.
            [dataclasses.replace(each, inputs=[row.copy() for row in each.inputs or ()]) for each in answers],
            {each.index: body.picture(each.index) for each in answers if not each.inputs},
            {index: file for index, file in files if isinstance(file, bytes)},
        )
        size = queued.size
        if self._queued_bytes - self._written_bytes + size > _LIMITS.queued_bytes:
            self._metrics.feedback_dropped.inc(queued.count)
            return
        self._queued_bytes += size
        self._answers.put(queued)

    def find(self, request_id: str, index: int, caller: str) -> list[Record]:
        """Return the records of a picture of the caller's request that any worker answered, or none.

        Raise FeedbackUnavailableError. In code that `bridge.run` calls, as `use_store`.
        """
        end = time.perf_counter() + _LIMITS.find
        while True:
            records = self.use_store(lambda store: store.find_kept(request_id, index, caller))
            if records or time.perf_counter() > end:
                return records
            await_(asyncio.sleep(_LIMITS.find_interval))

    def use_store(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        """Call the function with the store, in a thread. Raise FeedbackUnavailableError."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, lambda: self._store.use(function))
        try:
            return await_(asyncio.wait_for(future, _LIMITS.call))
        except (StoreError, OSError) as error:
            # The thread that writes may hang as well, and then tells nothing.
            self.is_available = False
            _log.warning("feedback is unavailable: %s", str(error) or f"no answer in {_LIMITS.call:g} s")
            raise FeedbackUnavailableError(
                "The store of feedback does not answer. Try again later."
            ) from error

    def _write(self) -> None:
        """Write answers until `close`, and delete expired ones."""
        expired_at = 0.0
        while True:
            answers = self._take()
            unwritten = sum(answer.count for answer in answers)
            try:
                # Before the answers are written: a full disk may get room for them.
                if time.monotonic() - expired_at >= _LIMITS.expiry:
                    self._store.use(lambda store: store.expire(self._seconds, _LIMITS.kept_inputs))
                    expired_at = time.monotonic()
                records = [record for answer in answers for record in answer.records()]
                self._store.use(partial(FeedbackStore.keep, records=records))
                samples = self._choose_samples(records)
                unwritten = len(samples)
                if samples:
                    self._store.use(partial(FeedbackStore.save, records=samples))
                for sample in samples:
                    self._metrics.feedback_sampled.labels(sample.model, sample.version).inc()
                unwritten = 0
                # Each worker closes a removed file before any worker can make a new one.
                self._store.use(FeedbackStore.check_file)
                self.is_available = True
            except Exception as error:
                # Every failure: the thread must outlive it, and the next answers get another attempt.
                if self.is_available:
                    is_bug = not isinstance(error, StoreError)
                    _log.error("feedback is unavailable: %s", error, exc_info=is_bug)
                self.is_available = False
            self._metrics.feedback_dropped.inc(unwritten)
            self._written_bytes += sum(answer.size for answer in answers)
            if self._closing.is_set() and self._answers.empty():
                return

    def _choose_samples(self, records: Sequence[Record]) -> list[Record]:
        """Return the unsure answers of the sampled requests, without originals: nobody labels those."""
        return [
            dataclasses.replace(record, source="sample", original=None)
            for record in records
            if record.confidence < _LIMITS.sure and in_share(self._sample_share, record.request_id, b"sample")
        ]

    def _take(self) -> list[_Queued]:
        """Return the queued answers: wait for the first for `_LIMITS.idle` seconds, and gather others."""
        taken = []
        with suppress(queue.Empty):
            taken.append(self._answers.get(timeout=_LIMITS.idle))
            self._closing.wait(_LIMITS.batch)
            while True:
                taken.append(self._answers.get_nowait())
        return [answer for answer in taken if answer]


def _template(context: RequestContext, version: int) -> Record:
    """Return what the records of a request have in common."""
    return Record(
        request_id=context.request_id,
        index=0,
        position=0,
        caller=context.caller,
        kind="read" if context.readings else "predict",
        model=context.model,
        version=version,
        predicted=NO_CLASS,
        confidence=0.0,
        is_digit=None,
        input=b"",
        answered_at=datetime.now(UTC),
    )


def _whole_input(picture: bytes | NDArray[Any], task: TaskCard) -> images.Pixels:
    """Return a picture in the model's form, black if nothing is written on it."""
    try:
        if isinstance(picture, bytes):
            return images.prepare(images.decode_for_task(picture, task), task)
        return images.prepare(to_pixels(picture, task), task)
    except images.NoInkError:
        return np.zeros(task.shape, np.uint8)
