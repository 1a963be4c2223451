"""Shared store of feedback: a worker's requests call it in threads, and open it anew after a failure."""

import asyncio
import logging
import math
import mmap
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar, TypeVar

from digit_core.feedback.records import Record
from digit_core.feedback.store import FeedbackStore
from digit_core.feedback.table import NoRoomError, StoreError
from digit_serving.feedback import quota
from digit_serving.feedback.errors import FeedbackFullError, FeedbackUnavailableError
from digit_serving.feedback.metrics import FeedbackMetrics
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.settings import Settings

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


_CALL_SECONDS = 2.0
"""Longest wait of a request for the store."""
_PROBE_SECONDS = 0.3
"""Longest wait of a probe for the store."""
_CHECK_SECONDS = 10.0
"""Time between two deletions of expired samples, which also tell whether the store can be used."""
_KEPT_SECONDS = 1.0
"""Time for which a check counts, and a worker does not see what others write."""
_SILENT = "the store does not answer"


class WorkerStore:
    """Store of a worker's feedback. Create it in the event loop that serves, close it after all requests."""

    _is_failing: ClassVar = mmap.mmap(-1, 1)
    """Shared memory of the workers, forked after the import: 1 from a failure, or a call that hangs, until a
    check succeeds, each in any worker. Reads do not end it: they succeed under a write lock."""

    def __init__(self, settings: Settings, metrics: FeedbackMetrics) -> None:
        self._url, self._days = settings.feedback, settings.feedback_days
        self._quota = settings.feedback_bytes
        self.metrics = metrics
        self._store: FeedbackStore | None = None
        self._expiry: Future[None] | None = None
        self._check: Future[Mapping[str, int]] | None = None
        self._checked_at = self._sized_at = -math.inf
        self._sizes = Counter[str]()
        """Bytes of each caller's records at `_sized_at`, and what this worker has added since."""
        # Two threads: a call that hangs must not delay other work in threads, nor every other call.
        self._executor = ThreadPoolExecutor(2, "feedback")
        self._check_regularly()

    def _check_regularly(self) -> None:
        """Create the tables in the background, and check the store from now on."""
        if self._expiry is None or self._expiry.done():
            self._expiry = self._submit_check(self._expire)
        self._timer = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check_regularly)

    def _expire(self, store: FeedbackStore) -> None:
        """Delete expired samples, which may make room. Raise StoreError if no picture can be stored."""
        store.expire(self._days)
        self._check_store(store)

    def _begin_check(self) -> Future[Mapping[str, int]]:
        """Return the check that is under way or a second old, or else a new one."""
        if not self._check or (self._check.done() and time.monotonic() - self._checked_at > _KEPT_SECONDS):
            self._check, self._checked_at = self._submit_check(self._look), time.monotonic()
        return self._check

    def _look(self, store: FeedbackStore) -> Mapping[str, int]:
        """Return the bytes of each caller. Raise StoreError if the store can't be read or written."""
        self._check_store(store)
        self._sized_at = -math.inf
        return self._sizes_of(store)

    def _check_store(self, store: FeedbackStore) -> None:
        """Note for all workers that the store can be used. Raise StoreError if it can't."""
        store.check(insert=bool(self._is_failing[0]))
        self._is_failing[0] = 0

    def _submit_check(self, check: Callable[[FeedbackStore], _Result]) -> Future[_Result]:
        """Call the check in a thread, and note for all workers if it takes longer than a call may."""
        future = self.submit(check)

        def note_late() -> None:
            if not future.done():
                self._note_failure(_SILENT)

        asyncio.get_running_loop().call_later(_CALL_SECONDS, note_late)
        return future

    def _sizes_of(self, store: FeedbackStore) -> Counter[str]:
        """Return the bytes of each caller, asked at most a second ago."""
        if time.monotonic() - self._sized_at > _KEPT_SECONDS:
            self._sizes, self._sized_at = Counter(store.sizes()), time.monotonic()
        return self._sizes

    def ask(self) -> Mapping[str, int]:
        """Return the bytes of each caller. Raise StoreError while the store can't be used.

        Ask the store itself, so that every worker gives the same answer. In code that `bridge.run` calls.
        """
        check = asyncio.shield(asyncio.wrap_future(self._begin_check()))
        try:
            return dict(await_(asyncio.wait_for(check, _PROBE_SECONDS)))
        except TimeoutError:
            if self._is_failing[0]:
                raise StoreError(_SILENT) from None
            # A store that is busy answers soon.
            return dict(self._sizes)

    def saving(
        self, records: Sequence[Record], known: Sequence[Record] = ()
    ) -> Callable[[FeedbackStore], None]:
        """Return a function that saves records of one caller, as `FeedbackStore.save`, within the quota.

        It raises FeedbackFullError.
        """
        caller = records[0].caller if records else ""

        def save(store: FeedbackStore) -> None:
            sizes = self._sizes_of(store)

            def admit(added: int) -> None:
                most = quota.limit(sizes, caller, self._quota)
                if added and sizes[caller] + added > most:
                    raise FeedbackFullError(quota.refusal(caller, most))
                sizes[caller] += added

            store.save(records, known, admit)

        return save

    async def close(self) -> None:
        """Finish the calls that have begun."""
        self._timer.cancel()
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def use(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        """Return the function's result. Raise FeedbackUnavailableError. In code that `bridge.run` calls."""
        try:
            return await_(asyncio.wait_for(asyncio.wrap_future(self.submit(function)), _CALL_SECONDS))
        except (StoreError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                self._note_failure(_SILENT)
            fault = "has no room" if isinstance(error, NoRoomError) else "does not answer"
            raise FeedbackUnavailableError(f"The store of feedback {fault}. Try again later.") from error

    def submit(self, function: Callable[[FeedbackStore], _Result]) -> Future[_Result]:
        """Call the function in a thread. The future raises StoreError if the store fails."""
        return self._executor.submit(self._call, function)

    def _call(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        try:
            was_failing = self._is_failing[0]
            # Two threads may open it at once, which does no harm.
            self._store = store = self._store or FeedbackStore(self._url)
            result = function(store)
        except StoreError as error:
            # Opened anew, it creates its tables, if its file was removed.
            self._store = None
            self._note_failure(error)
            raise
        if was_failing:
            # Let the next probe check anew.
            self._checked_at = -math.inf
        self.metrics.written.set_to_current_time()
        return result

    def _note_failure(self, reason: object) -> None:
        """Note for all workers that the store can't be used, and let the next probe check anew."""
        if not self._is_failing[0]:
            _log.error("feedback is unavailable: %s", reason)
            self._is_failing[0], self._checked_at = 1, -math.inf
