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
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.feedback_table import StoreError, is_held_out
from digit_core.artifact.task_card import NO_CLASS, TaskCard
from digit_core.recognition import to_pixels
from digit_core.results import Prediction, Reading
from digit_serving.feedback.records import Record
from digit_serving.feedback.store import FeedbackStore, KeptAnswers
from digit_serving.gateway.body import Body
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.errors import FeedbackUnavailableError
from digit_serving.gateway.observe import Metrics
from digit_serving.gateway.request import Answer, RequestContext
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import in_share

_MAX_QUEUED_BYTES = 32 * 2**20
"""Pictures that wait for the thread. Further answers are dropped."""
_BATCH_SECONDS = 0.1
"""Time in which answers gather for one transaction."""
_EXPIRY_SECONDS = 1.0
"""Least time between two deletions of expired answers."""
_IDLE_SECONDS = 10.0
"""Longest time between two deletions of expired answers."""
_FIND_SECONDS = 0.5
"""Longest wait for an answer that another worker is about to write."""
_FIND_INTERVAL_SECONDS = 0.05
_CALL_SECONDS = 2.0
"""Longest wait for the store."""
_CALL_THREADS = 2
_RETRY_SECONDS = 1.0
"""Time between two attempts to open a database, which take some 10 ms."""
_CLOSE_SECONDS = 5.0
"""Longest wait for the thread at the end."""

_Database = TypeVar("_Database", KeptAnswers, FeedbackStore)
_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


class _Lazy(Generic[_Database]):
    """Database that is opened at its first use, and anew after a failure, at most once a second.

    A new opening is what a removed file needs. Uses until then fail at once.
    """

    def __init__(self, kind: type[_Database], url: str) -> None:
        self._kind: type[_Database] = kind
        self._url = url
        self._lock = threading.Lock()
        self._next_attempt = 0.0
        self._database: _Database | None = None

    def use(self, function: Callable[[_Database], _Result]) -> _Result:
        """Call the function with the open database. Raise StoreError."""
        with self._lock:
            if self._database is None:
                if time.monotonic() < self._next_attempt:
                    raise StoreError("the database failed within the last second")
                self._next_attempt = time.monotonic() + _RETRY_SECONDS
                self._database = self._kind(self._url)
            database = self._database
        try:
            return function(database)
        except StoreError:
            with self._lock:
                if self._database is database:
                    self._database = None
            database.close()
            raise

    def close(self) -> None:
        if self._database:
            self._database.close()


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
    raises: answers that can't be kept are counted. While a database can't be opened, later uses try again.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._seconds = settings.feedback_keep
        self._max_rows = settings.feedback_max_kept
        self._keeps_originals = settings.feedback_originals
        self._sample_share = settings.feedback_sample
        self._sample_below = settings.feedback_sample_below
        self._metrics = metrics
        self._answers: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        # Each counter has one thread that writes it, so that neither needs a lock.
        self._queued_bytes = self._written_bytes = 0
        self.is_available = True
        """False while answers or feedback can't be written, as of the latest attempt."""
        self._closing = threading.Event()
        self._kept = _Lazy(KeptAnswers, settings.feedback)
        self._store = _Lazy(FeedbackStore, settings.feedback)
        self._writer = threading.Thread(target=self._write, name="answers", daemon=True)
        # Threads of its own: a store that hangs must not delay other work in threads.
        self._executor = ThreadPoolExecutor(_CALL_THREADS, "feedback")

    def start(self) -> None:
        """Start the thread, which writes the answers."""
        self._answers.put(None)
        self._writer.start()

    def close(self) -> None:
        """Write the answers in the queue, within `_CLOSE_SECONDS`, and close the databases."""
        self._closing.set()
        self._answers.put(None)
        self._writer.join(_CLOSE_SECONDS)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._kept.close()
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
        if self._queued_bytes - self._written_bytes + size > _MAX_QUEUED_BYTES:
            self._metrics.feedback_dropped.inc(queued.count)
            return
        self._queued_bytes += size
        self._answers.put(queued)

    def find(self, request_id: str, index: int, caller: str) -> list[Record]:
        """Return the records of a picture of the caller's request that any worker answered, or none.

        Raise FeedbackUnavailableError. In code that `bridge.run` calls, as `use_store`.
        """
        end = time.perf_counter() + _FIND_SECONDS
        while True:
            records = self._call(self._kept, lambda kept: kept.find(request_id, index, caller))
            if records or time.perf_counter() > end:
                return records
            await_(asyncio.sleep(_FIND_INTERVAL_SECONDS))

    def use_store(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        """Call the function with the store, in a thread. Raise FeedbackUnavailableError."""
        return self._call(self._store, function)

    def _write(self) -> None:
        """Write answers until `close`, and delete expired ones."""
        expired_at = 0.0
        while True:
            answers = self._take()
            unwritten = sum(answer.count for answer in answers)
            try:
                # Before the answers are written: a full memory may get room for them.
                if time.monotonic() - expired_at >= _EXPIRY_SECONDS:
                    self._kept.use(lambda kept: kept.expire(self._seconds, self._max_rows))
                    expired_at = time.monotonic()
                records = [record for answer in answers for record in answer.records()]
                self._kept.use(partial(KeptAnswers.save, records=records))
                samples = self._choose_samples(records)
                unwritten = len(samples)
                if samples:
                    self._store.use(partial(FeedbackStore.save, records=samples))
                for sample in samples:
                    self._metrics.feedback_sampled.labels(sample.model, sample.version).inc()
                unwritten = 0
                # Open it before the first feedback, which would have to wait. A removed file must be closed
                # by each worker before any can make a new one.
                self._store.use(FeedbackStore.check_file)
                self.is_available = True
            except Exception as error:
                # Whatever it is, the next answers get another attempt.
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
            if record.confidence < self._sample_below
            and in_share(self._sample_share, record.request_id, b"sample")
        ]

    def _take(self) -> list[_Queued]:
        """Return the answers in the queue. Wait for the first at most `_IDLE_SECONDS`, and gather others."""
        taken = []
        with suppress(queue.Empty):
            taken.append(self._answers.get(timeout=_IDLE_SECONDS))
            self._closing.wait(_BATCH_SECONDS)
            while True:
                taken.append(self._answers.get_nowait())
        return [answer for answer in taken if answer]

    def _call(self, database: _Lazy[_Database], function: Callable[[_Database], _Result]) -> _Result:
        """Call the function with the database in a thread."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, lambda: database.use(function))
        try:
            return await_(asyncio.wait_for(future, _CALL_SECONDS))
        except (StoreError, OSError) as error:
            # The thread that writes may hang as well, and then tells nothing.
            self.is_available = False
            _log.warning("feedback is unavailable: %s", str(error) or f"no answer in {_CALL_SECONDS:g} s")
            raise FeedbackUnavailableError(
                "The store of feedback does not answer. Try again later."
            ) from error


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
        held_out=is_held_out(context.request_id),
    )


def _whole_input(picture: bytes | NDArray[Any], task: TaskCard) -> images.Pixels:
    """Return a picture in the model's form, black if nothing is written on it."""
    try:
        if isinstance(picture, bytes):
            return images.prepare(images.decode_for_task(picture, task), task)
        return images.prepare(to_pixels(picture, task), task)
    except images.NoInkError:
        return np.zeros(task.shape, np.uint8)
