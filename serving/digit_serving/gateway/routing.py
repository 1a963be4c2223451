"""Which version of the model answers a request."""

import hashlib
import time
from contextlib import suppress

from digit_client import DigitError, ModelNotFoundError, Prediction, UnavailableError
from digit_client._retries import Deadline
from digit_client.tfserving.codec import Batch, ModelRef
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.settings import Settings

_CANARY = "canary"


def default_model(settings: Settings) -> ModelRef:
    """What a request gets that names neither version nor label, unless it goes to the canary."""
    return ModelRef(settings.model_name, label=settings.default_label or None)


class Router:
    """Asks the version that a request names; of those that name none, a share goes to the canary.

    The deadline bounds a request's wait and its calls together. Its context tells who was asked in vain.
    """

    def __init__(self, settings: Settings, batcher: Batcher) -> None:
        self._settings = settings
        self._batcher = batcher
        self._default = default_model(settings)
        self._canary = ModelRef(settings.model_name, label=_CANARY)

    def predict(self, batch: Batch, named: ModelRef | None, context: RequestContext) -> list[Prediction]:
        """The predictions for the batch. Raises ModelNotFoundError only where the request names a version."""
        left = self._settings.deadline - (time.perf_counter() - context.started)
        # That it had to wait is not the model server's fault.
        deadline = Deadline(max(left, self._settings.max_queue_time))

        def ask(asked: str, model: ModelRef) -> list[Prediction]:
            return self._ask(asked, batch, model, deadline, context)

        if named:
            return ask("named", named)
        percent = self._settings.canary_percent
        if percent and _is_among(percent, context.request_id):
            # Between two canaries no version carries the label.
            with suppress(ModelNotFoundError):
                return ask("canary", self._canary)
        try:
            return ask("default", self._default)
        except ModelNotFoundError as error:
            raise UnavailableError(error.message) from error

    def _ask(
        self, asked: str, batch: Batch, model: ModelRef, deadline: Deadline, context: RequestContext
    ) -> list[Prediction]:
        try:
            return await_(self._batcher.predict(batch, model, timeout=deadline.remaining(), context=context))
        except DigitError as error:
            context.failures.append((asked, error.code))
            raise


def _is_among(percent: float, request_id: str) -> bool:
    """Whether the request is among so many percent of all; the same id always is, also among more percent."""
    number = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest())
    return number / 2**64 * 100 < percent
