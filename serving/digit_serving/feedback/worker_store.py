"""Shared store of feedback: a worker's requests call it in threads, and open it anew after a failure."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from digit_core.feedback.store import FeedbackStore
from digit_core.feedback.table import StoreError
from digit_serving.feedback.errors import FeedbackUnavailableError
from digit_serving.feedback.metrics import FeedbackMetrics
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.settings import Settings

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


_CALL_SECONDS = 2.0
"""Longest wait of a request for the store."""
_CHECK_SECONDS = 10.0
"""Time between two deletions of expired samples, which also tell whether the store can be used."""


class WorkerStore:
    """Store of a worker's feedback. Create it in the event loop that serves, close it after all requests."""

    def __init__(self, settings: Settings, metrics: FeedbackMetrics) -> None:
        self._url, self._days = settings.feedback, settings.feedback_days
        self.metrics = metrics
        self.is_available = True
        """False while the store can't be used, as of the latest attempt."""
        self._store: FeedbackStore | None = None
        self._check: Future[int] | None = None
        # Two threads: a call that hangs must not delay other work in threads, nor every other call.
        self._executor = ThreadPoolExecutor(2, "feedback")
        self._check_regularly()

    def _check_regularly(self) -> None:
        """Create the tables in the background, and check the store from now on."""
        if self._check is None or self._check.done():
            self._check = self.submit(lambda store: store.expire(self._days))
        self._timer = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check_regularly)

    async def close(self) -> None:
        """Finish the calls that have begun."""
        self._timer.cancel()
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def use(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        """Return the function's result. Raise FeedbackUnavailableError. In code that `bridge.run` calls."""
        try:
            return await_(asyncio.wait_for(asyncio.wrap_future(self.submit(function)), _CALL_SECONDS))
        except (StoreError, TimeoutError) as error:
            self.is_available = False
            raise FeedbackUnavailableError(
                "The store of feedback does not answer. Try again later."
            ) from error

    def submit(self, function: Callable[[FeedbackStore], _Result]) -> Future[_Result]:
        """Call the function in a thread. The future raises StoreError if the store fails."""
        return self._executor.submit(self._call, function)

    def _call(self, function: Callable[[FeedbackStore], _Result]) -> _Result:
        try:
            # Two threads may open it at once, which does no harm.
            self._store = store = self._store or FeedbackStore(self._url)
            result = function(store)
        except StoreError as error:
            if self.is_available:
                _log.error("feedback is unavailable: %s", error)
            # Opened anew, it creates its tables, if its file was removed.
            self._store, self.is_available = None, False
            raise
        self.is_available = True
        self.metrics.written.set_to_current_time()
        return result
