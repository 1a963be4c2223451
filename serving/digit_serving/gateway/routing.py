"""Canary routing: selects the model version that answers a request."""

import hashlib
import time
from contextlib import suppress

from digit_client import (
    DeadlineExceededError,
    DigitError,
    ModelNotFoundError,
    Prediction,
    UnavailableError,
)
from digit_client.tfserving.codec import Batch, ModelRef
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.settings import Settings

_CANARY = "canary"


def default_model(settings: Settings) -> ModelRef:
    """Return the default: the version that DIGITS_DEFAULT_LABEL names, otherwise the newest one."""
    return ModelRef(settings.model_name, label=settings.default_label or None)


class Router:
    """Sends a request to the version that it names, otherwise to the canary (a percentage) or the default.

    One deadline bounds a request's wait and all its calls. The request's context records failed calls.
    """

    def __init__(self, settings: Settings, batcher: Batcher) -> None:
        self._settings = settings
        self._batcher = batcher
        self._default = default_model(settings)
        self._canary = ModelRef(settings.model_name, label=_CANARY)

    def predict(self, batch: Batch, requested: ModelRef | None, context: RequestContext) -> list[Prediction]:
        """Return the batch's predictions, in order.

        The version that answers the request's first call answers all further ones. Raise ModelNotFoundError
        if the requested version or label does not exist, UnavailableError if the default does not, or if
        the version was unloaded between two calls; otherwise what Batcher.predict raises.
        """
        if context.model_version is not None:
            return self._predict_again(batch, context.model_version, context)
        predictions = self._predict_first(batch, requested, context)
        context.model_version = predictions[0].model_version
        return predictions

    def _predict_first(
        self, batch: Batch, requested: ModelRef | None, context: RequestContext
    ) -> list[Prediction]:
        now = time.perf_counter()
        # Leave at least `max_queue_time` for the call, however long the request has waited for admission.
        remaining = self._settings.deadline - (now - context.arrived_at)
        deadline = now + max(remaining, self._settings.max_queue_time)

        if requested:
            return self._call("named", batch, requested, deadline, context)
        percent = self._settings.canary_percent
        if percent and _in_canary(percent, context.request_id):
            # Fall back to the default: between two canaries no version has the label.
            with suppress(ModelNotFoundError):
                return self._call("canary", batch, self._canary, deadline, context)
        try:
            return self._call("default", batch, self._default, deadline, context)
        except ModelNotFoundError as error:
            raise UnavailableError(error.message) from error

    def _predict_again(self, batch: Batch, version: int, context: RequestContext) -> list[Prediction]:
        model = ModelRef(self._settings.model_name, version=version)
        try:
            deadline = context.arrived_at + self._settings.deadline
            return self._call("pinned", batch, model, deadline, context)
        except ModelNotFoundError as error:
            raise UnavailableError(error.message) from error

    def _call(
        self, route: str, batch: Batch, model: ModelRef, deadline: float, context: RequestContext
    ) -> list[Prediction]:
        try:
            timeout = deadline - time.perf_counter()
            if timeout <= 0:
                raise DeadlineExceededError("no time is left for another call")
            return await_(self._batcher.predict(batch, model, timeout=timeout, context=context))
        except DigitError as error:
            context.failures.append((route, error.code))
            raise


def _in_canary(percent: float, request_id: str) -> bool:
    """True for `percent` percent of the request IDs, by their hash: an ID is always routed the same way."""
    number = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest())
    return number / 2**64 * 100 < percent
