"""Upstream: calls to the model server on behalf of requests. A request's route is resolved once."""

import math
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.versions import ArtifactError
from digit_core.errors import (
    DigitError,
    InvalidOutputError,
    ModelNotFoundError,
    ReaderMissingError,
    UnavailableError,
)
from digit_core.reading.peaks import Peaks
from digit_core.recognition import Classify, Find
from digit_core.results import Answer
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import LayerValues, ModelRef, Network
from digit_core.tfserving.connection import AsyncConnection, ServedVersion
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.errors import DefaultMissingError, UnknownModelError
from digit_serving.gateway.observers import Observers
from digit_serving.gateway.request import RequestContext, Route, Wait
from digit_serving.gateway.settings import Settings

_EXPECTED_SECONDS = 60.0
"""Time in which all model servers follow a change: those that copy a bucket look every half minute."""


class Chooser:
    """Chooses a version, by its label, for some of the requests that name none; by default for none."""

    name: ClassVar[str] = ""
    """Reason that is recorded for the version."""

    def choose_label(self, model: str, request_id: str) -> str | None:
        """Return the label of the version that is asked, or None."""
        return None

    def version_labels(self, model: str) -> Collection[str]:
        """Return the version labels that are used, for /v1/models."""
        return ()


class Upstream:
    """Model server of the gateway: sends a request to the version that it names or a feature chooses.

    The request's deadline bounds its wait and all its calls; its context records failed calls. The methods
    that take a context raise ModelNotFoundError if the requested version or label does not exist,
    UnknownModelError if neither the settings nor the model server have a model of that name,
    DefaultMissingError if no version has the default label, UnavailableError if the version was unloaded
    between two calls, and errors of the call.
    """

    def __init__(
        self,
        settings: Settings,
        model_server: AsyncConnection,
        observers: Observers,
        choosers: Sequence[Chooser] = (),
    ) -> None:
        self._settings = settings
        self._defaults = {name: default_version(settings, name) for name in settings.models}
        self._reader = default_version(settings, settings.reader)
        self._model_server = model_server
        self._batcher = Batcher(model_server, settings)
        self._called = observers.called
        self._choosers = choosers
        self._answered_at = dict[ModelRef, float]()
        """Monotonic time of the latest answer of what each reference names."""

    def route(self, context: RequestContext, requested: ModelRef) -> Route:
        """Return the version that is asked: the one named, the one that a feature chooses, or the default.

        The model server is called only for a version or label that it has not answered for yet.
        """
        if requested.version is not None or requested.version_label is not None:
            return self._resolve(context, "named", requested)
        for chooser in self._choosers:
            if label := chooser.choose_label(requested.name, context.request_id):
                # Perhaps no loaded version has the label.
                with suppress(ModelNotFoundError):
                    return self._resolve(context, chooser.name, ModelRef(requested.name, version_label=label))
        return self._default(context, requested.name)

    def asking(self, context: RequestContext, route: Route) -> "Asking":
        """Return the function that answers the requests of a recognition by the route's card."""
        return Asking(self, context, route)

    def card(self, context: RequestContext, model: ModelRef) -> TaskCard:
        """Return the task card of the version that the reference names now."""
        try:
            version = await_(self._model_server.resolve(model, deadline=context.deadline))
            model = ModelRef(model.name, version)
            return await_(self._model_server.served(model, deadline=context.deadline)).card
        except DigitError as error:
            raise self._failure(context, "named", model, error) from error.__cause__

    def statuses(self, context: RequestContext, name: str) -> list[VersionStatus]:
        """Return the status of each version of a model. Raise UnknownModelError if there is none."""
        self._check_name(name)
        if found := self._find(context, name):
            return found
        raise UnavailableError(f"the model server does not have the model {name} yet")

    def _find(self, context: RequestContext, name: str) -> list[VersionStatus]:
        """Return the status of each version of a model, [] if the model is expected."""
        try:
            found = await_(self._model_server.versions(ModelRef(name), deadline=context.deadline))
        except ModelNotFoundError:
            found = []
        if not any(map(_is_there, found)) and not self._is_expected(ModelRef(name), found):
            raise _unknown(name)
        return found

    def _check_name(self, name: str) -> None:
        """Raise UnknownModelError if models.config names no such model."""
        if self._is_configured(ModelRef(name)) is False:
            raise _unknown(name)

    def _is_configured(self, model: ModelRef) -> bool | None:
        """Return whether models.config names what the reference does, None if the file does not say.

        The default model counts as named. Only the policy `specific` says which versions exist.
        """
        name, file = model.name, self._settings.models_config
        if model == ModelRef(self._settings.model_name):
            return True
        try:
            config = ModelsConfig.parse(file.read_text()) if file else None
        except (OSError, ArtifactError):
            config = None
        if config is None:
            return None
        if model.version is not None and name in config.base_paths:
            listed = config.listed(name)
            return model.version in listed if listed else None
        has_label = model.version_label is None or model.version_label in config.labels(name)
        return name in config.base_paths and has_label

    def _is_expected(self, model: ModelRef, found: Sequence[VersionStatus]) -> bool:
        """True if the model server is to have what the reference names, as models.config says now.

        Where the file does not say, the settings and the status of the model's versions decide. Without a
        status, what answered within the last minute is expected: several model servers follow a change one
        after another.
        """
        name, is_model = model.name, model == ModelRef(model.name)
        if (is_configured := self._is_configured(model)) is not None:
            return is_configured
        if is_model and name in self._settings.models:
            return True
        if states := [each.state for each in found if model.version in (None, each.version)]:
            return "START" in states or "LOADING" in states
        answered_at = (at for seen, at in self._answered_at.items() if is_model and seen.name == name)
        latest = max(answered_at, default=self._answered_at.get(model, -math.inf))
        return time.monotonic() - latest < _EXPECTED_SECONDS

    def network(self, context: RequestContext, name: str, version: int) -> Network | None:
        """Return name and test accuracy of a version's network, or None if they are unknown."""
        with suppress(DigitError):
            model = ModelRef(name, version)
            return await_(self._model_server.served(model, deadline=context.deadline)).network
        return None

    def layers(
        self, context: RequestContext, model: ModelRef, pixels: NDArray[np.uint8]
    ) -> list[LayerValues]:
        """Return the values of each layer of a version for a picture, uint8 [*shape]."""
        try:
            return await_(self._model_server.layers(pixels, model, deadline=context.deadline))
        except DigitError as error:
            raise self._failure(context, "pinned", model, error) from error.__cause__

    def labels(self, context: RequestContext, name: str) -> dict[str, int]:
        """Return the version of each label that has one. TensorFlow Serving has no call that lists labels."""
        chosen = (label for chooser in self._choosers for label in chooser.version_labels(name))
        used = (self._settings.for_model(name).default_label, *chosen, *self._settings.labels)
        labels = {}
        for label in dict.fromkeys(filter(None, used)):
            with suppress(ModelNotFoundError):
                labelled = ModelRef(name, version_label=label)
                labels[label] = await_(self._model_server.resolve(labelled, deadline=context.deadline))
        return labels

    def predict(self, context: RequestContext, route: Route, request: Classify) -> list[Answer] | Route:
        """Return the answers of the route's version, or the route to one that has to be asked instead."""
        wait = Wait(context.request_id, context.deadline, time.monotonic(), context.trace)
        context.waits.append(wait)
        try:
            answers = await_(self._batcher.predict(request.batch, route.served, wait))
        except DigitError as error:
            if route.is_chosen and isinstance(error, ModelNotFoundError):
                context.failures.append((route.reason, error.code))
                return self._default(context, route.chosen.name)
            raise self._failure(context, route.reason, route.served.model, error) from error.__cause__
        if isinstance(answers, ServedVersion):
            return route.pinned(answers)
        for called in self._called:
            called(context, route, request, answers)
        if any(isinstance(answer, InvalidOutputError) for answer in answers):
            context.failures.append((route.reason, InvalidOutputError.code))
        context.model_version = answers[0].model_version
        self._answered_at[route.chosen] = time.monotonic()
        return answers

    def find(self, context: RequestContext, request: Find) -> Peaks:
        """Return what the reader finds on a page. Raise ReaderMissingError if the service has none."""
        started = time.monotonic()
        try:
            return await_(
                self._model_server.find(
                    request.page, self._reader, deadline=context.deadline, request_id=context.request_id
                )
            )
        except DigitError as error:
            context.failures.append(("reader", error.code))
            if isinstance(error, ModelNotFoundError):
                raise ReaderMissingError(error.message) from error
            raise
        finally:
            context.stages["find"] += time.monotonic() - started

    def _default(self, context: RequestContext, name: str) -> Route:
        default = self._defaults.get(name) or default_version(self._settings, name)
        return self._resolve(context, "default", default)

    def _resolve(self, context: RequestContext, reason: str, model: ModelRef) -> Route:
        served = self._model_server.known.get(model)
        if served is None:
            # Callers may name anything: what models.config rules out is not asked for.
            self._check_name(model.name)
            try:
                if reason != "default" and self._is_configured(model) is False:
                    raise ModelNotFoundError(f"models.config does not name {model}")
                served = await_(self._model_server.served(model, deadline=context.deadline))
            except DigitError as error:
                raise self._failure(context, reason, model, error) from error.__cause__
        context.has_model = True
        return Route(reason, served, model)

    def _failure(
        self, context: RequestContext, reason: str, model: ModelRef, error: DigitError
    ) -> DigitError:
        """Record a failed call, and return the error as the caller of the gateway should get it.

        Raise UnknownModelError before anything is recorded: callers may name anything.
        """
        is_missing = isinstance(error, ModelNotFoundError)
        is_named = is_missing and reason == "named"
        found: list[VersionStatus] = []
        if (is_missing and reason == "default") or (is_named and self._is_configured(model) is None):
            found = self._find(context, model.name)
        context.has_model |= is_missing or model.name in self._defaults
        context.failures.append((reason, error.code))
        if is_missing and reason == "default":
            return DefaultMissingError(describe_missing(model, found))
        # Where a version that a feature chose is missing, the default answers.
        if (is_missing and reason == "pinned") or (is_named and self._is_expected(model, found)):
            return UnavailableError(error.message)
        return error


class Asking:
    """Answers the requests of one recognition: the version that answers the first one answers all."""

    def __init__(self, upstream: Upstream, context: RequestContext, route: Route) -> None:
        self.route = route
        """Route of the latest call."""
        self._upstream, self._context = upstream, context
        self._answered: int | None = None

    def __call__(self, request: Classify | Find) -> list[Answer] | Peaks | TaskCard:
        """Return the answer to a request: the card of another version if that has to be asked instead."""
        if isinstance(request, Find):
            return self._upstream.find(self._context, request)
        if self._answered is not None and self.route.reason != "pinned":
            self.route = self.route.pinned(self.route.served.pinned(self._answered))
        answered = self._upstream.predict(self._context, self.route, request)
        if isinstance(answered, Route):
            # A label has moved, or the chosen version has lost its label.
            self.route = answered
            return answered.served.card
        self._answered = answered[0].model_version
        return answered


def default_version(settings: Settings, name: str) -> ModelRef:
    """Return a model's default: the version that its default label names, otherwise the newest one."""
    return ModelRef(name, version_label=settings.for_model(name).default_label or None)


def _unknown(name: str) -> UnknownModelError:
    return UnknownModelError(f"The service has no model {name}.")


def _is_there(status: VersionStatus) -> bool:
    """True if the version is loaded, to be loaded, or failed; a model server still lists removed ones."""
    return status.state != "END" or bool(status.error)


def describe_missing(default: ModelRef, statuses: Sequence[VersionStatus]) -> str:
    """Return a sentence on why a default does not answer: versions are loading, or none has the label.

    The command that sets the label is named only if nothing is loading, since it could move the label.
    """
    if loading := [str(status.version) for status in statuses if status.state in ("START", "LOADING")]:
        return f"The model {default.name} is loading, version {', '.join(loading)}. Try again later."
    if not default.version_label or not any(status.is_available for status in statuses):
        return f"No version of the model {default.name} is available."
    option = "" if default.version_label == "stable" else f" --version-label {default.version_label}"
    return (
        f"No loaded version of the model {default.name} has the label {default.version_label}; "
        f"`digits models promote N --model {default.name}{option}` gives it to version N."
    )
