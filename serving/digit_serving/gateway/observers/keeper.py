"""Answer keeper: writes a worker's answers in the background, and feedback on any worker's answers."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import NO_CLASS, TaskCard
from digit_core.recognition import Outcome, Prepare, to_pixels
from digit_core.results import Prediction, Reading
from digit_serving.errors import StoreError
from digit_serving.feedback.records import Record
from digit_serving.feedback.store import FeedbackStore
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.errors import FeedbackUnavailableError
from digit_serving.gateway.observers import Observer
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.parsing import Body
from digit_serving.gateway.request import RequestContext, Route
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


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer to the picture at `index` of its request, as it waits for the thread."""

    index: int
    result: Prediction | Reading
    inputs: Sequence[NDArray[Any]]
    """The model's inputs that showed the result: one of a prediction, one for each digit of a reading."""
    picture: bytes | NDArray[Any] | None
    """The picture as sent, if it is stored or there is no input."""


@dataclass(frozen=True, slots=True)
class _Queued:
    """Answers of a request; `template` is what their records have in common."""

    template: Record
    task: TaskCard
    answers: Sequence[_Answer]

    @property
    def count(self) -> int:
        """Number of records."""
        return sum(len(answer.inputs) or 1 for answer in self.answers)

    @property
    def size(self) -> int:
        """Bytes of all pictures."""
        arrays = [array for answer in self.answers for array in (*answer.inputs, answer.picture)]
        return sum(memoryview(array).nbytes for array in arrays if array is not None)


class AnswerKeeper(Observer):
    """Keeps the worker's answers for a while, in the background, and stores feedback on any worker's answers.

    A sample of unsure answers is stored, too, without labels.

    Call `start` in the process that serves, `close` after its last request. Keeping never blocks and never
    raises: answers that can't be kept are counted. While the store can't be opened, later uses try again.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._answers: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        # Each counter has one thread that writes it, so that neither needs a lock.
        self._queued_bytes = self._written_bytes = 0
        self.is_available = True
        """False while answers or feedback can't be written, as of the latest attempt."""
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._store: FeedbackStore | None = None
        self._next_opening = 0.0
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
        if self._store:
            self._store.close()

    def answered(
        self, context: RequestContext, route: Route, body: Body, outcomes: Mapping[int, Outcome[Any]]
    ) -> None:
        """Queue the outcomes, unless too many pictures wait; the thread makes records of them."""
        card, name = route.served.card, route.served.model.name
        # Feedback is one label for each input.
        if not outcomes or card.is_multi_label or not self._settings.for_model(name).feedback:
            return
        if not all(map(_has_inputs, outcomes.values())):
            self.drop(len(outcomes))
            return
        answers = []
        for index, outcome in outcomes.items():
            # Copies, because an input may be a part of an array of many, which would stay in memory.
            inputs = [row.copy() for row in outcome.inputs]
            needs_picture = self._settings.feedback_originals or not inputs
            picture = body.picture(index) if needs_picture else None
            assert isinstance(outcome.result, (Prediction, Reading))
            answers.append(_Answer(index, outcome.result, inputs, picture))
        template = Record(
            request_id=context.request_id,
            index=0,
            position=0,
            caller=context.key,
            kind="read" if isinstance(answers[0].result, Reading) else "predict",
            model=name,
            version=answers[0].result.model_version,
            predicted=NO_CLASS,
            confidence=0.0,
            is_digit=None,
            input=b"",
            answered_at=datetime.now(UTC),
        )
        queued = _Queued(template, card, answers)
        size = queued.size
        if self._queued_bytes - self._written_bytes + size > _LIMITS.queued_bytes:
            self.drop(queued.count)
            return
        self._queued_bytes += size
        self._answers.put(queued)

    def drop(self, count: int) -> None:
        """Count answers that are not kept."""
        self._metrics.feedback_dropped().inc(count)

    def find(self, request_id: str, index: int, caller: str) -> list[Record]:
        """Return the records of a picture of the caller's request that any worker answered, or none.

        Raise FeedbackUnavailableError. In code that `bridge.run` calls, as `use_store`.
        """
        end = time.monotonic() + _LIMITS.find
        while True:
            records = self.use_store(lambda store: store.find_kept(request_id, index, caller))
            if records or time.monotonic() > end:
                return records
            await_(asyncio.sleep(_LIMITS.find_interval))

    def use_store(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        """Call the function with the store, in a thread. Raise FeedbackUnavailableError."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, self._use, function)
        try:
            return await_(asyncio.wait_for(future, _LIMITS.call))
        except (StoreError, OSError) as error:
            # The thread that writes may hang as well, and then tells nothing.
            self.is_available = False
            _log.warning("feedback is unavailable: %s", str(error) or f"no answer in {_LIMITS.call:g} s")
            raise FeedbackUnavailableError(
                "The store of feedback does not answer. Try again later."
            ) from error

    def _use(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        """Call the function with the store, which is opened anew after a failure: its file may be gone.

        Raise StoreError; uses within a second after a failed attempt to open the store fail at once.
        """
        with self._lock:
            if self._store is None:
                if time.monotonic() < self._next_opening:
                    raise StoreError("the database failed within the last second")
                self._next_opening = time.monotonic() + _LIMITS.retry
                self._store = FeedbackStore(self._settings.feedback)
            store = self._store
        try:
            return function(store)
        except StoreError:
            with self._lock:
                if self._store is store:
                    self._store = None
            store.close()
            raise

    def _write(self) -> None:
        """Write answers until `close`, and delete expired ones."""
        expired_at = 0.0
        while True:
            answers = self._take()
            unwritten = sum(answer.count for answer in answers)
            try:
                # Before the answers are written: a full disk may get room for them.
                if time.monotonic() - expired_at >= _LIMITS.expiry:
                    seconds, rows = self._settings.feedback_keep, _LIMITS.kept_inputs
                    self._use(partial(FeedbackStore.expire, seconds=seconds, max_rows=rows))
                    expired_at = time.monotonic()
                records = [record for answer in answers for record in self._records(answer)]
                self._use(partial(FeedbackStore.keep, records=records))
                # Without originals: nobody labels those.
                samples = [
                    replace(record, source="sample", original=None)
                    for record in records
                    if (record.confidence < _LIMITS.sure or record.predicted == NO_CLASS)
                    and in_share(self._settings.feedback_sample, record.request_id, b"sample")
                ]
                unwritten = len(samples)
                self._use(partial(FeedbackStore.save, records=samples))
                for sample in samples:
                    self._metrics.feedback_sampled(sample.model, sample.version).inc()
                unwritten = 0
                # Each worker closes a removed file before any worker can make a new one.
                self._use(FeedbackStore.check_file)
                self.is_available = True
            except Exception as error:
                # Every failure: the thread must outlive it, and the next answers get another attempt.
                if self.is_available:
                    is_bug = not isinstance(error, StoreError)
                    _log.error("feedback is unavailable: %s", error, exc_info=is_bug)
                self.is_available = False
            self.drop(unwritten)
            self._written_bytes += sum(answer.size for answer in answers)
            if self._closing.is_set() and self._answers.empty():
                return

    def _take(self) -> list[_Queued]:
        """Return the queued answers: wait for the first for `_LIMITS.idle` seconds, and gather others."""
        taken = []
        with suppress(queue.Empty):
            taken.append(self._answers.get(timeout=_LIMITS.idle))
            self._closing.wait(_LIMITS.batch)
            while True:
                taken.append(self._answers.get_nowait())
        return [answer for answer in taken if answer]

    def _records(self, queued: _Queued) -> Iterator[Record]:
        """Yield a record for each input: of a prediction, of each digit, or of the whole picture if empty."""
        task = queued.task
        for answer in queued.answers:
            result, picture = answer.result, answer.picture
            original = picture if self._settings.feedback_originals and isinstance(picture, bytes) else None
            record = replace(queued.template, index=answer.index, original=original)
            inputs = [images.to_png(to_pixels(row, task)) for row in answer.inputs]
            if isinstance(result, Prediction):
                yield replace(
                    record,
                    predicted=NO_CLASS if result.label is None else result.label,
                    confidence=result.confidence,
                    is_digit=result.is_digit,
                    input=inputs[0],
                )
            elif picture is not None and not inputs:
                whole = Prepare(picture if isinstance(picture, bytes) else to_pixels(picture, task), task)()
                assert isinstance(whole, np.ndarray)
                yield replace(record, input=images.to_png(whole))
            else:
                for position, (digit, png) in enumerate(zip(result.digits, inputs, strict=True)):
                    yield replace(
                        record,
                        position=position,
                        predicted=str(digit.digit),
                        confidence=digit.confidence,
                        input=png,
                        # One copy of the picture is enough for all of its digits.
                        original=None if position else original,
                    )


def _has_inputs(outcome: Outcome[Any]) -> bool:
    """True unless the inputs of an outcome were left out."""
    result = outcome.result
    return len(outcome.inputs) == (len(result.digits) if isinstance(result, Reading) else 1)
