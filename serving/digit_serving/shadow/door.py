"""Shadow: a second version answers a share of the calls, unseen by the callers, and is compared."""

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from digit_core.artifact.task_card import TaskCard
from digit_core.errors import DigitError, InvalidOutputError, ModelNotFoundError
from digit_core.recognition import Classify, Prepare, to_pixels
from digit_core.results import Answer
from digit_core.tfserving.codec import Batch, ModelRef
from digit_core.tfserving.connection import AsyncConnection, ServedVersion
from digit_serving.gateway import tls
from digit_serving.gateway.batching import MAX_CALL_BYTES, Batcher, CircuitBreaker
from digit_serving.gateway.door import Feature, in_share
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.observers import Observer
from digit_serving.gateway.observers.metrics import REQUEST_SECONDS, Metrics
from digit_serving.gateway.request import Call, Deadlines, RequestContext, Route, Wait
from digit_serving.gateway.settings import Settings

_MAX_PENDING = 32
"""Calls of a worker that wait for the shadow version's answer. Further ones are not compared."""
_MAX_PENDING_BYTES = 2 * MAX_CALL_BYTES
"""Model inputs of these calls. Further calls are not compared."""
_RECHECK_SECONDS = 1.0
"""Time between two calls while no version has the shadow's label, or the default version has it."""
_RETRY_SECONDS = 60.0
"""Time between two trial calls to a version that times out. A call may hold a thread of the model server for
much longer than the gateway waits, and an answer is not urgent."""

_log = logging.getLogger(__name__)


class ShadowMetrics:
    """Metrics of the comparisons, among those of the gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self.compared = metrics.counter(
            "shadow_predictions",
            "Model inputs that the shadow version answered as well, by its agreement.",
            *("model", "version", "shadow_version", "agrees"),
        )
        self.dropped = metrics.counter(
            "shadow_dropped", "Calls of the shadow's share that were not compared.", "model", "reason"
        )
        self.seconds = metrics.histogram(
            "shadow_duration_seconds",
            "Time of successful calls to the shadow version.",
            REQUEST_SECONDS,
            *("model", "version"),
        )


class Shadow(Feature, Observer):
    """Sends the calls of a share of the requests to the shadow version, too, and compares the answers.

    A comparison begins when the answer is known, runs in the background, and never raises. The pictures are
    prepared by the shadow version's own card. Its calls have a retry budget, batches and circuits of their
    own, so that no failure of the shadow version affects a request. Create the object in the event loop that
    serves.
    """

    def __init__(self, settings: Settings, metrics: Metrics, work: Work) -> None:
        self.observer = self
        self._settings = settings
        self._deadlines = Deadlines(settings)
        self._metrics = ShadowMetrics(metrics)
        self._model_server = AsyncConnection(settings.model_server, tls.channel_credentials(settings))
        breaker = CircuitBreaker(retry_seconds=_RETRY_SECONDS)
        self._batcher = Batcher(self._model_server, settings, breaker)
        # A thread of its own: the requests' large pictures must not wait for the shadow's.
        self._executor = ThreadPoolExecutor(1, "shadow")
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_bytes = 0
        self._pauses: dict[str, tuple[str, float]] = {}
        """Reason for which a model's calls are not compared, and since when, by time.monotonic."""
        self._failures: dict[str, str] = {}
        """Reason of each model's latest failure."""

    def called(
        self, context: RequestContext, route: Route, asked: Classify, answers: Sequence[Answer]
    ) -> None:
        """Compare the answers in the background, unless too many comparisons are pending.

        Skip requests that name a version, and requests that the version with the shadow's label answers.
        """
        model = self._settings.for_model(route.chosen.name)
        is_named = context.requested.version is not None or context.requested.version_label is not None
        if is_named or not model.shadow_label or route.chosen.version_label == model.shadow_label:
            return
        if not in_share(model.shadow_share, context.request_id, b"shadow"):
            return
        reason, since = self._pauses.get(route.served.model.name, ("", -math.inf))
        if time.monotonic() >= since + _RECHECK_SECONDS:
            is_busy = self._pending_bytes + _size(asked) > _MAX_PENDING_BYTES
            reason = "busy" if is_busy or len(self._tasks) >= _MAX_PENDING else ""
        if reason:
            self._drop(route.served.model.name, reason)
            return
        self._pending_bytes += _size(asked)
        now = time.monotonic()
        wait = Wait(context.request_id, self._deadlines.of_model(route.chosen.name, now).end, now)
        # Use an empty context: Flask's would keep the request's body in memory.
        task = asyncio.get_running_loop().create_task(
            self._compare(route, asked, answers, wait), context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def version_labels(self, model: str) -> Collection[str]:
        """Return the shadow's label."""
        return (self._settings.for_model(model).shadow_label,)

    async def close(self) -> None:
        """Cancel the comparisons and close the connection."""
        for task in self._tasks:
            task.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
        await self._model_server.close()

    async def _compare(self, route: Route, asked: Classify, answers: Sequence[Answer], wait: Wait) -> None:
        """Ask the shadow version, and count its agreement and time, or the reason of a failure."""
        name, version = route.chosen.name, answers[0].model_version
        shadow = ModelRef(name, version_label=self._settings.for_model(name).shadow_label)
        try:
            served = await self._model_server.served(shadow, deadline=wait.deadline)
            predictions = await self._predict(served, route.served.card, asked, wait)
        except Exception as error:
            is_absent = isinstance(error, ModelNotFoundError)
            reason = error.code if isinstance(error, DigitError) else "internal_error"
            self._drop(name, "absent" if is_absent else reason, pause=is_absent)
            self._log_once(reason, shadow, error)
        else:
            if predictions[0].model_version == version:
                # Pause only if the default version has the shadow's label: a canary answers a share.
                self._drop(name, "same_version", pause=route.reason == "default")
            else:
                self._count(name, answers, predictions, wait.call)
        finally:
            self._pending_bytes -= _size(asked)

    async def _predict(
        self, served: ServedVersion, card: TaskCard, asked: Classify, wait: Wait
    ) -> list[Answer]:
        batch = asked.batch
        if not served.card.prepares_as(card):
            loop = asyncio.get_running_loop()
            batch = await loop.run_in_executor(self._executor, _prepare, asked, card, served.card)
        answered = await self._batcher.predict(batch, served, wait)
        if isinstance(answered, ServedVersion):
            return await self._predict(answered, card, asked, wait)
        return answered

    def _count(
        self, model: str, answers: Sequence[Answer], predictions: Sequence[Answer], call: Call | None
    ) -> None:
        answered, version = answers[0].model_version, predictions[0].model_version
        self._failures.pop(model, None)
        pairs = zip(answers, predictions, strict=True)
        agreeing = sum(_verdict(answer) == _verdict(prediction) for answer, prediction in pairs)
        for agrees, count in (("true", agreeing), ("false", len(answers) - agreeing)):
            self._metrics.compared(model, answered, version, agrees).inc(count)
        assert call
        assert call.ended_at
        self._metrics.seconds(model, version).observe(call.ended_at - call.started_at)

    def _drop(self, model: str, reason: str, *, pause: bool = False) -> None:
        self._metrics.dropped(model, reason).inc()
        if pause:
            self._pauses[model] = (reason, time.monotonic())

    def _log_once(self, reason: str, shadow: ModelRef, error: Exception) -> None:
        """Log a failure, unless the model's latest call failed for the same reason."""
        if self._failures.get(shadow.name) != reason:
            self._failures[shadow.name] = reason
            traceback = None if isinstance(error, DigitError) else error
            _log.warning("answers were not compared with %s: %s", shadow, error, exc_info=traceback)


def _verdict(prediction: Answer) -> object:
    """Return the label, the labels of a multi-label model, or None if a model of digits sees no digit."""
    if isinstance(prediction, InvalidOutputError):
        return InvalidOutputError
    if prediction.has_digit_labels and not prediction.looks_like_digit():
        return None
    named = prediction.predicted_labels
    return prediction.labels[prediction.index] if named is None else named


def _prepare(asked: Classify, card: TaskCard, other: TaskCard) -> Batch:
    """Return the batch as another card prepares its pictures."""
    pictures = asked.pictures or [to_pixels(row, card) for row in asked.batch]
    return np.stack([np.asarray(Prepare(picture, other)()) for picture in pictures])


def _size(asked: Classify) -> int:
    return asked.batch.nbytes + sum(len(each) for each in asked.pictures if isinstance(each, bytes))
