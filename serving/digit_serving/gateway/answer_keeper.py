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
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_client import Prediction, Reading, TaskCard, images
from digit_client._recognition import prepare_picture, to_pixels
from digit_client.artifact.feedback_table import StoreError, is_held_out
from digit_client.artifact.task_card import NO_CLASS
from digit_serving.feedback.records import Kind, Record
from digit_serving.feedback.store import FeedbackStore, KeptAnswers
from digit_serving.gateway.answers import Answer
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import FeedbackUnavailableError
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.request_parsing import Body
from digit_serving.gateway.routing import in_share
from digit_serving.gateway.settings import Settings

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
_Parameters = ParamSpec("_Parameters")

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

    def use(
        self,
        function: Callable[Concatenate[_Database, _Parameters], _Result],
        *arguments: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Result:
        """Call the function with the open database. Raise StoreError."""
        with self._lock:
            if self._database is None:
                if time.monotonic() < self._next_attempt:
                    raise StoreError("the database failed within the last second")
                self._next_attempt = time.monotonic() + _RETRY_SECONDS
                self._database = self._kind(self._url)
            database = self._database
        try:
            return function(database, *arguments, **named)
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
class _Answer:
    """Answer of a request: `count` records without originals, originals by index, bytes of all pictures."""

    records: Iterator[Record]
    count: int
    originals: Mapping[int, bytes]
    size: int

    def complete_records(self) -> Iterator[Record]:
        for record in self.records:
            # One copy of the picture is enough for all of its digits.
            original = None if record.position else self.originals.get(record.index)
            yield dataclasses.replace(record, original=original)


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
        self._answers: queue.SimpleQueue[_Answer | None] = queue.SimpleQueue()
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

    def keep_predictions(
        self, context: RequestContext, answers: Sequence[Answer[Prediction]], task: TaskCard, body: Body
    ) -> None:
        """Queue the predictions, each with the model's input."""
        if not all(answer.inputs for answer in answers):
            # The inputs were too large to be kept together.
            self._metrics.feedback_dropped.inc(len(answers))
            return
        # A copy, because an input may be a part of an array of many, which would stay in memory. A generator
        # leaves the conversion to the thread.
        kept = [(answer.index, answer.result, answer.inputs[0].copy()) for answer in answers]
        template = _template(context, "predict", answers[0].result.model_version)
        records = (
            dataclasses.replace(
                template,
                index=index,
                predicted=NO_CLASS if prediction.label is None else prediction.label,
                confidence=prediction.confidence,
                is_digit=prediction.is_digit,
                input=images.to_png(to_pixels(row, task)),
            )
            for index, prediction, row in kept
        )
        self._put(records, len(kept), sum(row.nbytes for _, _, row in kept), body)

    def keep_readings(
        self, context: RequestContext, answers: Sequence[Answer[Reading]], task: TaskCard, body: Body
    ) -> None:
        """Queue the digits of the readings, each with the model's input.

        An empty reading has one input, the whole picture in the model's form.
        """
        digits = [
            (answer.index, position, digit, glyph.copy())
            for answer in answers
            for position, (digit, glyph) in enumerate(zip(answer.result.digits, answer.inputs, strict=True))
        ]
        empty = [(answer.index, body.picture(answer.index)) for answer in answers if not answer.inputs]
        template = _template(context, "read", answers[0].result.model_version)

        def records() -> Iterator[Record]:
            for index, position, digit, row in digits:
                yield dataclasses.replace(
                    template,
                    index=index,
                    position=position,
                    predicted=str(digit.digit),
                    confidence=digit.confidence,
                    input=images.to_png(to_pixels(row, task)),
                )
            for index, picture in empty:
                yield dataclasses.replace(
                    template, index=index, input=images.to_png(_whole_input(picture, task))
                )

        size = sum(row.nbytes for *_, row in digits)
        size += sum(len(file) if isinstance(file, bytes) else file.nbytes for _, file in empty)
        self._put(records(), len(digits) + len(empty), size, body)

    def find(self, request_id: str, index: int, caller: str) -> list[Record]:
        """Return the records of a picture of the caller's request that any worker answered, or none.

        Raise FeedbackUnavailableError. In code that `asgi.run` calls, as `use_store`.
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

    def _put(self, records: Iterator[Record], count: int, size: int, body: Body) -> None:
        """Queue the answer, unless too many pictures are in the queue."""
        files = enumerate(body.files if self._keeps_originals else ())
        originals = {index: file for index, file in files if isinstance(file, bytes)}
        size += sum(map(len, originals.values()))
        if self._queued_bytes - self._written_bytes + size > _MAX_QUEUED_BYTES:
            self._metrics.feedback_dropped.inc(count)
            return
        self._queued_bytes += size
        self._answers.put(_Answer(records, count, originals, size))

    def _write(self) -> None:
        """Write answers until `close`, and delete expired ones."""
        expired_at = 0.0
        while True:
            answers = self._take()
            unwritten = sum(answer.count for answer in answers)
            try:
                # Before the answers are written: a full memory may get room for them.
                if time.monotonic() - expired_at >= _EXPIRY_SECONDS:
                    self._kept.use(KeptAnswers.expire, self._seconds, self._max_rows)
                    expired_at = time.monotonic()
                records = [record for answer in answers for record in answer.complete_records()]
                self._kept.use(KeptAnswers.keep, records)
                samples = self._choose_samples(records)
                unwritten = len(samples)
                if samples:
                    self._store.use(FeedbackStore.save, samples)
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

    def _take(self) -> list[_Answer]:
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


def _template(context: RequestContext, kind: Kind, version: int) -> Record:
    """Return what the records of a request have in common."""
    return Record(
        request_id=context.request_id,
        index=0,
        position=0,
        caller=context.caller,
        kind=kind,
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
        source = picture if isinstance(picture, bytes) else to_pixels(picture, task)
        return prepare_picture(source, task)
    except images.NoInkError:
        return np.zeros(task.shape, np.uint8)
