"""Shadow: a second version also answers a share of the requests, unseen by the callers, and is compared."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_core.errors import DigitError, ModelNotFoundError
from digit_core.results import Prediction
from digit_core.tfserving.async_connection import AsyncConnection
from digit_core.tfserving.codec import Batch, ModelRef
from digit_serving.gateway import tls
from digit_serving.gateway.observe import Metrics
from digit_serving.gateway.request import Answer, RequestContext
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import MAX_CALL_BYTES, Batcher, CircuitBreaker, in_share, names_version

_MAX_PENDING = 32
"""Requests of a worker that wait for the shadow version's answer. Further ones are dropped."""
_MAX_PENDING_BYTES = 2 * MAX_CALL_BYTES
"""Model inputs of these requests. Further requests are dropped."""
_RECHECK_SECONDS = 1.0
"""Time between two calls while no version has the label, or the version that answers the requests anyway."""
_RETRY_SECONDS = 60.0
"""Time between two trial calls to a version that times out. A call may hold a thread of the model server for
much longer than the gateway waits, and an answer is not urgent."""

_Judge = Callable[[Prediction], object]
"""Function that returns an answer to be compared: a label, the labels of a multi-label model, or None for an
input that shows no digit."""

_log = logging.getLogger(__name__)


class Shadow:
    """Compares the answers of a share of the requests with those of the version that has the shadow label.

    A comparison begins when the answer is known, runs in the background, and never raises. Its calls have a
    retry budget, a task cache, batches and circuits of their own, so that no failure of the shadow version
    affects a request. Create the object in the event loop that serves.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._max_images = settings.max_images
        self._timeout = settings.deadline
        self._metrics = metrics
        self._model_server = AsyncConnection(settings.model_server, tls.channel_credentials(settings))
        breaker = CircuitBreaker(retry_seconds=_RETRY_SECONDS)
        self._batcher = Batcher(self._model_server, settings, breaker=breaker)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_bytes = 0
        self._versions: dict[str, _Labelled] = {}
        """What has the label, by the model's name, as of the latest answer."""
        self._logged: set[tuple[str, str]] = set()
        """Models and reasons that were logged since another version got the label."""

    def compare(
        self,
        context: RequestContext,
        answers: Sequence[Answer[Any]],
        min_is_digit: float,
    ) -> None:
        """Compare a request's predictions, or the digits of its readings, if the request is in the share."""
        if not self._is_chosen(context):
            return
        inputs = [row for answer in answers for row in answer.inputs or ()]
        if any(answer.inputs is None for answer in answers):
            self._metrics.shadow_dropped.labels(context.model, "too_large").inc()
        elif not context.readings:
            judge = partial(_verdict, min_is_digit)
            # Of pictures with several digits the numbers compare, too: those of their input as a whole.
            self._start(context, [judge(answer.result) for answer in answers], judge, inputs)
        elif inputs:
            labels = [str(digit.digit) for digit in context.digits]
            # Labels only: a reading accepts digits by the whole line, not by each one's own acceptance.
            self._start(context, labels, _label, inputs)

    async def close(self) -> None:
        """Cancel the comparisons and close the connection."""
        for task in self._tasks:
            task.cancel()
        await self._model_server.close()

    def _is_chosen(self, context: RequestContext) -> bool:
        """True for the share of the requests that name no version, if the model has a shadow."""
        model = self._settings.for_model(context.model)
        return (
            bool(model.shadow_label)
            and not names_version(context.requested)
            and in_share(model.shadow_share, context.request_id, b"shadow")
        )

    def _start(
        self,
        context: RequestContext,
        answered: Sequence[object],
        judge: _Judge,
        inputs: Sequence[NDArray[Any]],
    ) -> None:
        """Start the comparison in the background, unless it would be useless or too many are pending."""
        batch = np.stack(inputs)
        if reason := self._reason_to_drop(context, batch):
            self._metrics.shadow_dropped.labels(context.model, reason).inc()
            return
        comparison = _Comparison(context, answered, judge, batch)
        self._pending_bytes += batch.nbytes
        # An empty context: Flask's would keep the request's body in memory.
        task = asyncio.get_running_loop().create_task(
            self._compare(comparison), context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reason_to_drop(self, context: RequestContext, batch: Batch) -> str | None:
        if len(batch) > self._max_images or batch.nbytes > MAX_CALL_BYTES:
            return "too_large"
        labelled = self._versions.get(context.model)
        if labelled and time.monotonic() < labelled.seen_at + _RECHECK_SECONDS:
            if labelled.version is None:
                return "absent"
            if labelled.version == context.model_version:
                return "same_version"
        if len(self._tasks) >= _MAX_PENDING or self._pending_bytes + batch.nbytes > _MAX_PENDING_BYTES:
            return "busy"
        return None

    async def _compare(self, comparison: "_Comparison") -> None:
        """Ask the shadow version, and count its agreement and time, or the reason why there are none."""
        now, asked = time.monotonic(), comparison.context
        # A context of its own: no metric, log line or span of the request may show this call.
        context = RequestContext(asked.request_id, "shadow", "other", now, now, now + self._timeout)
        shadow = ModelRef(asked.model, label=self._settings.for_model(asked.model).shadow_label)
        try:
            predictions = await self._batcher.predict(comparison.batch, shadow, context)
        except Exception as error:
            self._drop(shadow, error)
        else:
            (wait,) = context.waits
            assert wait.call
            assert wait.call.ended_at
            self._count(comparison, predictions, wait.call.ended_at - wait.call.started_at)
        finally:
            self._pending_bytes -= comparison.batch.nbytes

    def _count(self, comparison: "_Comparison", predictions: Sequence[Prediction], seconds: float) -> None:
        model, version = comparison.context.model, predictions[0].model_version
        answered_version = comparison.context.model_version
        before = self._versions.get(model)
        if before is None or before.version != version:
            self._logged = {entry for entry in self._logged if entry[0] != model}
        self._versions[model] = _Labelled(version, time.monotonic())
        if version == answered_version:
            self._metrics.shadow_dropped.labels(model, "same_version").inc()
            return
        agreeing = sum(
            comparison.judge(prediction) == answer
            for prediction, answer in zip(predictions, comparison.answered, strict=True)
        )
        for agrees, count in (("true", agreeing), ("false", len(predictions) - agreeing)):
            self._metrics.shadow_predictions.labels(model, answered_version, version, agrees).inc(count)
        self._metrics.shadow_seconds.labels(model, version).observe(seconds)

    def _drop(self, shadow: ModelRef, error: Exception) -> None:
        """Count a comparison that failed. Log each reason once per version: any request may have it."""
        reason = error.code if isinstance(error, DigitError) else "internal_error"
        if isinstance(error, ModelNotFoundError):
            reason = "absent"
            self._versions[shadow.name] = _Labelled(None, time.monotonic())
        self._metrics.shadow_dropped.labels(shadow.name, reason).inc()
        if (shadow.name, reason) not in self._logged:
            self._logged.add((shadow.name, reason))
            traceback = None if isinstance(error, DigitError) else error
            _log.warning("no comparison with %s: %s", shadow, error, exc_info=traceback)


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Version that has the shadow label, None if there is none, at a time of time.monotonic."""

    version: int | None
    seen_at: float


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Answer of a request: what it was for each input of the batch."""

    context: RequestContext
    answered: Sequence[object]
    judge: _Judge
    batch: Batch


def _verdict(min_is_digit: float, prediction: Prediction) -> object:
    """Return what the model names, or None if a model of digits takes the input for none."""
    if prediction.has_digit_labels and not prediction.looks_like_digit(min_is_digit):
        return None
    return _label(prediction)


def _label(prediction: Prediction) -> object:
    """Return the most probable label, or the labels of a multi-label model."""
    named = prediction.predicted_labels
    return prediction.labels[prediction.index] if named is None else named
