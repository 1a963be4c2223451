"""Canary routing: selects the model version that answers a request."""

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.errors import (
    DeadlineExceededError,
    DigitError,
    ModelNotFoundError,
    ReaderMissingError,
    UnavailableError,
)
from digit_core.images import Peaks
from digit_core.results import Prediction
from digit_core.tfserving.async_connection import AsyncConnection
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import Batch, ModelRef
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import DefaultMissingError, UnknownModelError
from digit_serving.gateway.settings import Settings

_Result = TypeVar("_Result")
_Ask = Callable[[ModelRef, float], Awaitable[_Result]]
"""Function that asks a version of a model, within a timeout in seconds."""


def default_version(settings: Settings, name: str) -> ModelRef:
    """Return a model's default: the version that its default label names, otherwise the newest one."""
    return ModelRef(name, label=settings.for_model(name).default_label or None)


def describe_missing(default: ModelRef) -> str:
    """Return a sentence for a default label that no version has, with the command that sets it."""
    option = "" if default.label == "stable" else f" --version-label {default.label}"
    return (
        f"No loaded version of the model {default.name} has the label {default.label}; "
        f"`digits models promote N --model {default.name}{option}` gives it to version N."
    )


def _default_missing(default: ModelRef, error: ModelNotFoundError) -> UnavailableError:
    """Return the error of an absent default, which the caller has not named: it is the service's."""
    if default.label:
        return DefaultMissingError(describe_missing(default))
    return UnavailableError(error.message)


class Router:
    """Sends a request to the version that it names, otherwise to the canary (a share) or the default.

    The version that answers a request's first prediction answers all further ones. One deadline bounds a
    request's wait and all its calls. The request's context says what is requested, and records failed calls.

    Every method raises ModelNotFoundError if the requested version or label does not exist,
    DefaultMissingError if no version has the default label, UnavailableError if the version was unloaded
    between two calls, and errors of the call.
    """

    def __init__(self, settings: Settings, model_server: AsyncConnection, batcher: Batcher) -> None:
        self._settings = settings
        self._model_server = model_server
        self._batcher = batcher

    def predict(self, batch: Batch, context: RequestContext) -> list[Prediction]:
        """Return the batch's predictions, in order."""

        def ask(model: ModelRef, timeout: float) -> Awaitable[list[Prediction]]:
            return self._batcher.predict(batch, model, timeout=timeout, context=context)

        predictions = self._route(ask, context)
        context.model_version = predictions[0].model_version
        return predictions

    def find(self, page: NDArray[np.uint8], context: RequestContext) -> Peaks:
        """Return what the reader finds on a page. Raise ReaderMissingError if the service has none."""
        self._begin_deadline(context)
        started = time.perf_counter()
        context.find_started_at = context.find_started_at or started

        def ask(model: ModelRef, timeout: float) -> Awaitable[Peaks]:
            return self._model_server.find(page, model, timeout=timeout, request_id=context.request_id)

        try:
            return self._call("reader", ask, default_version(self._settings, self._settings.reader), context)
        except ModelNotFoundError as error:
            raise ReaderMissingError(error.message) from error
        finally:
            context.find_seconds += time.perf_counter() - started

    def task(self, context: RequestContext) -> TaskCard:
        """Return the task of the version that is asked. Calls are needed only before its first answer.

        Raise UnknownModelError if the settings don't list the model and the model server has none of its
        name.
        """

        def ask(model: ModelRef, timeout: float) -> Awaitable[TaskCard]:
            return self._model_server.task(model, timeout=timeout)

        _, target = self._target(context)
        if known := self._model_server.known_task(target):
            return known
        if context.model not in self._settings.models:
            # Before any call that counts as a failure of the model: callers may name anything.
            self.statuses(context.model)
        return self._route(ask, context)

    def statuses(self, name: str) -> list[VersionStatus]:
        """Return the status of each version of a model. Raise UnknownModelError as `task` does."""
        try:
            return await_(self._model_server.versions(ModelRef(name), timeout=self._settings.deadline))
        except ModelNotFoundError as error:
            if name in self._settings.models:
                raise UnavailableError(error.message) from error
            raise UnknownModelError(f"The service has no model {name}.") from error

    def version(self, context: RequestContext) -> int:
        """Return the version that has answered the request, or would."""

        def ask(model: ModelRef, timeout: float) -> Awaitable[int]:
            return self._model_server.resolve(model, timeout=timeout)

        return context.model_version or self._route(ask, context)

    def _target(self, context: RequestContext) -> tuple[str, ModelRef]:
        """Return the route and the version or label that is asked.

        That is the version that has answered the request before, what the request names, canary or default.
        """
        requested = context.requested
        if context.model_version is not None:
            return "pinned", ModelRef(requested.name, version=context.model_version)
        if names_version(requested):
            return "named", requested
        model = self._settings.for_model(requested.name)
        if model.canary_label and in_share(model.canary_share, context.request_id):
            return "canary", ModelRef(requested.name, label=model.canary_label)
        return "default", default_version(self._settings, requested.name)

    def _route(self, ask: _Ask[_Result], context: RequestContext) -> _Result:
        self._begin_deadline(context)
        route, target = self._target(context)
        try:
            return self._call(route, ask, target, context)
        except ModelNotFoundError as error:
            if route == "named":
                raise
            if route == "pinned":
                raise UnavailableError(error.message) from error
            if route == "default":
                raise _default_missing(target, error) from error
        # Between two canaries no version has the label.
        default = default_version(self._settings, context.model)
        try:
            return self._call("default", ask, default, context)
        except ModelNotFoundError as error:
            raise _default_missing(default, error) from error

    def _begin_deadline(self, context: RequestContext) -> None:
        """Set the end of the time for calls, before the first one."""
        if context.deadline is None:
            # Leave at least `max_queue_time` for calls, however long the request has waited for admission.
            deadline = context.arrived_at + self._settings.deadline
            context.deadline = max(deadline, time.perf_counter() + self._settings.max_queue_time)

    def _call(self, route: str, ask: _Ask[_Result], model: ModelRef, context: RequestContext) -> _Result:
        assert context.deadline
        try:
            timeout = context.deadline - time.perf_counter()
            if timeout <= 0:
                raise DeadlineExceededError("no time is left for another call")
            return await_(ask(model, timeout))
        except DigitError as error:
            context.failures.append((route, error.code))
            raise


def in_share(share: float, request_id: str, purpose: bytes = b"") -> bool:
    """True for a share, 0..1, of the request IDs, by their hash: always for the same ones.

    The shares of different purposes, of at most 16 bytes, are independent of each other.
    """
    if not share:
        return False
    number = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8, person=purpose).digest())
    return number < share * 2**64


def names_version(requested: ModelRef) -> bool:
    """True if the request names a version or a label."""
    return requested.version is not None or requested.label is not None
