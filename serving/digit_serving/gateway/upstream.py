"""Upstream: the model server, as requests ask it.

A request's route is resolved once. Requests that wait at the same time share a call (dynamic batching). A
circuit breaker lets requests for a model that times out fail at once.
"""

import asyncio
import copy
import hashlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.errors import (
    DeadlineExceededError,
    DigitError,
    InvalidOutputError,
    ModelNotFoundError,
    ReaderMissingError,
    UnavailableError,
    without_tracebacks,
)
from digit_core.images import Peaks
from digit_core.recognition import Classify, Find
from digit_core.results import Answer
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import Batch, LayerValues, ModelRef, Network
from digit_core.tfserving.connection import AsyncConnection, ServedVersion, VersionMovedError
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.errors import DefaultMissingError, UnknownModelError
from digit_serving.gateway.observers import Observers
from digit_serving.gateway.request import Call, Reason, RequestContext, Route, Wait
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.traffic import TrafficFile

_MAX_REQUESTS = 32
"""Requests per call: their IDs, up to 128 bytes each, travel as metadata, which gRPC limits to 8 kB."""
MAX_CALL_BYTES = 16 * 2**20
"""Largest model input of a call: a compressed picture may have a thousandth of its size."""
_QUIET_ITERATIONS = 12
"""Event-loop iterations without a new request after which the next batch is complete. An idle iteration takes
some 10 µs; a caller on the same machine sends its next request within 100 µs of its answer."""
_MAX_COLLECT_SECONDS = 0.1
"""Longest collection of a batch. Decoding 32 pictures of 280×280 takes less on a core of its own."""
_MAX_TIMEOUTS = 3
"""Timeouts in a row that open a circuit."""
_MAX_CIRCUITS = 1000
"""Circuits kept in memory, since callers may name any version. Beyond this number all are discarded."""

_BatchKey = tuple[ServedVersion, str, tuple[int, ...]]
"""Version for which images are prepared, dtype character and shape of an image: requests with the same key
can share a call."""


class RouteMovedError(Exception):
    """The pictures have to be prepared again, for `route`: a label has moved, or the canary is gone."""

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self.route = route


class Upstream:
    """Model server of the gateway: sends a request to the version that it names, the canary's or the default.

    The request's deadline bounds its wait and all its calls; its context gets a failed call as a fact. The
    methods that take a context raise ModelNotFoundError if the requested version or label does not exist,
    UnknownModelError if neither the settings nor the model server have a model of the name,
    DefaultMissingError if no version has the default label, UnavailableError if the version was unloaded
    between two calls, and errors of the call.
    """

    def __init__(self, settings: Settings, model_server: AsyncConnection, observers: Observers) -> None:
        self._settings = settings
        self._by_model, self._common = settings.by_model, settings.common
        self._defaults = {name: default_version(settings, name) for name in settings.models}
        self._reader = default_version(settings, settings.reader)
        self._model_server = model_server
        self._batcher = Batcher(model_server, settings)
        self._called = observers.called
        self.traffic = TrafficFile(settings.traffic_file)

    def route(self, context: RequestContext, requested: ModelRef) -> Route:
        """Return the version that is asked: the one named, the canary for a share, or the default.

        A second version, the shadow, answers unseen for a share of the requests that name none. A call is
        needed only before the first answer to a version or label.
        """
        context.requested, name = requested, requested.name
        model, shadow = self._by_model.get(name, self._common), None
        context.deadline = min(context.deadline, context.arrived_at + model.deadline)
        if requested.version is not None or requested.version_label is not None:
            return Route("named", self._served(context, "named", requested))
        if model.shadow_label and in_share(model.shadow_share, context.request_id, b"shadow"):
            shadow = ModelRef(name, version_label=model.shadow_label)
        if label := self._canary(name, context.request_id):
            # Between two canaries no version has the label.
            with suppress(ModelNotFoundError):
                canary = ModelRef(name, version_label=label)
                # A version always agrees with itself.
                others = None if shadow == canary else shadow
                return Route("canary", self._served(context, "canary", canary), others)
        return self._default(context, shadow)

    def asking(
        self, context: RequestContext, route: Route
    ) -> Callable[[Classify | Find], list[Answer] | Peaks]:
        """Return a function that answers the requests of a recognition by the route's card.

        The version that answers first answers all further requests. Raise RouteMovedError before, if another
        version has to.
        """

        answered: int | None = None

        def ask(request: Classify | Find) -> list[Answer] | Peaks:
            nonlocal route, answered
            if isinstance(request, Find):
                return self._find(context, request)
            if answered is not None and route.reason != "pinned":
                route = Route("pinned", route.served.pinned(answered), route.shadow)
            wait = Wait(context.request_id, context.deadline, time.monotonic(), context.trace)
            context.waits.append(wait)
            try:
                answers = await_(self._batcher.predict(request.batch, route.served, wait))
            except VersionMovedError as error:
                raise RouteMovedError(Route("pinned", error.served, route.shadow)) from error
            except DigitError as error:
                if route.reason == "canary" and isinstance(error, ModelNotFoundError):
                    context.failures.append((route.reason, error.code))
                    raise RouteMovedError(self._default(context, route.shadow)) from error
                raise self._failure(context, route.reason, route.served.model, error) from error.__cause__
            for called in self._called:
                called(context, route, request, answers)
            if any(isinstance(answer, InvalidOutputError) for answer in answers):
                context.failures.append((route.reason, InvalidOutputError.code))
            answered = context.model_version = answers[0].model_version
            return answers

        return ask

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
        unknown = UnknownModelError(f"The service has no model {name}.")
        try:
            found = await_(self._model_server.versions(ModelRef(name), deadline=context.deadline))
        except ModelNotFoundError as error:
            if name in self._settings.models and not self._is_removed(name):
                raise UnavailableError(error.message) from error
            raise unknown from error
        # A model server still lists the versions of a model that was removed.
        is_unloaded = all(status.state == "END" and not status.error for status in found)
        if is_unloaded and name != self._settings.model_name:
            raise unknown
        return found

    def _is_removed(self, name: str) -> bool:
        """True if the folder of a model is gone from beside models.config, where that is known."""
        file = self._settings.models_config
        return file is not None and not (file.parent / name).is_dir()

    def network(self, context: RequestContext, name: str, version: int) -> Network | None:
        """Return name and test accuracy of a version's network, or None if they can't be known."""
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
        model = self._settings.for_model(name)
        used = (model.default_label, *self.traffic.shares(name), model.shadow_label, *self._settings.labels)
        labels = {}
        for label in dict.fromkeys(filter(None, used)):
            with suppress(ModelNotFoundError):
                labelled = ModelRef(name, version_label=label)
                labels[label] = await_(self._model_server.resolve(labelled, deadline=context.deadline))
        return labels

    def _find(self, context: RequestContext, request: Find) -> Peaks:
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

    def _canary(self, name: str, request_id: str) -> str | None:
        """Return the version label that answers the request by its share of the model's, if one does."""
        end = 0.0
        for label, share in self.traffic.shares(name).items():
            end += share
            if in_share(end, request_id):
                return label
        return None

    def _default(self, context: RequestContext, shadow: ModelRef | None) -> Route:
        name = context.requested.name
        default = self._defaults.get(name) or default_version(self._settings, name)
        return Route("default", self._served(context, "default", default), shadow)

    def _served(self, context: RequestContext, reason: Reason, model: ModelRef) -> ServedVersion:
        if known := self._model_server.known.get(model):
            return known
        try:
            return await_(self._model_server.served(model, deadline=context.deadline))
        except DigitError as error:
            raise self._failure(context, reason, model, error) from error.__cause__

    def _failure(
        self, context: RequestContext, reason: Reason, model: ModelRef, error: DigitError
    ) -> DigitError:
        """Record a failed call, and return the error as the caller of the gateway should get it.

        Raise UnknownModelError before anything is recorded: callers may name anything.
        """
        is_missing = isinstance(error, ModelNotFoundError)
        if is_missing and model.name not in self._settings.models:
            self.statuses(context, model.name)
        context.failures.append((reason, error.code))
        if is_missing and reason == "pinned":
            return UnavailableError(error.message)
        if is_missing and reason == "default":
            return DefaultMissingError(describe_missing(model, self.statuses(context, model.name)))
        return error


class Batcher:
    """Sends the requests that arrive during a call together in the next call, without a timer.

    Each model has at most `max_inflight_calls` calls in flight. A call holds up to `max_images` images, or a
    single request that has more. For coroutines of one event loop.
    """

    def __init__(
        self, model_server: AsyncConnection, settings: Settings, breaker: "CircuitBreaker | None" = None
    ) -> None:
        self._model_server = model_server
        self._max_inflight_calls = settings.max_inflight_calls
        self._max_images = settings.max_images
        self._breaker = breaker or CircuitBreaker()
        self._queues: dict[_BatchKey, _BatchQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def predict(self, batch: Batch, served: ServedVersion, wait: Wait) -> list[Answer]:
        """Return the answers to the images of a batch that was prepared for a version, in their order.

        Raise VersionMovedError, errors of the call, DeadlineExceededError at the wait's deadline, and
        UnavailableError if the circuit of the model is open.
        """
        seconds = wait.deadline - time.monotonic()
        if seconds <= 0:
            raise DeadlineExceededError("no time is left")
        self._breaker.check(served.model)
        loop = asyncio.get_running_loop()
        request = _Waiting(batch, wait, loop.create_future())
        self._enqueue((served, batch.dtype.char, batch.shape[1:]), request)
        timer = loop.call_later(seconds, self._expire, served.model, request)
        try:
            return await request.future
        finally:
            timer.cancel()
            # Break the reference cycle of future, error and this frame, which keeps a request's body alive.
            del request

    def _enqueue(self, key: _BatchKey, request: "_Waiting") -> None:
        queue = self._queues.setdefault(key, _BatchQueue())
        queue.waiting.append(request)
        if queue.inflight < self._max_inflight_calls:
            queue.inflight += 1
            task = asyncio.create_task(self._process(key, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _expire(self, model: ModelRef, request: "_Waiting") -> None:
        if not request.future.done():
            self._breaker.record_timeout(model)
            request.future.set_exception(DeadlineExceededError("the model server did not answer in time"))

    async def _process(self, key: _BatchKey, queue: "_BatchQueue") -> None:
        """Send batch after batch until the queue is empty."""
        # Two iterations: only requests that arrived together can join.
        await queue.collect(quiet_iterations=2)
        while group := queue.next_group(self._max_images):
            await self._call(key[0], group)
            # Callers that have just been answered may join with their next request: a fuller call costs less.
            # A lone caller would join nobody.
            if len(group) > 1 or queue.waiting:
                await queue.collect(_QUIET_ITERATIONS)
        queue.inflight -= 1
        # Remove unused queues: callers may name any version.
        if not queue.inflight:
            del self._queues[key]

    async def _call(self, served: ServedVersion, group: list["_Waiting"]) -> None:
        """Resolve the requests' futures with their answers, or all with the call's error."""
        waits = [request.wait for request in group]
        call = Call(sum(len(request.batch) for request in group), time.monotonic())
        for wait in waits:
            wait.call = call
        waits[0].is_leader = True
        answers: list[Answer] = []
        failure: Exception | None = None
        try:
            answers = await self._model_server.predict(
                group[0].batch if len(group) == 1 else np.concatenate([request.batch for request in group]),
                served,
                # The latest deadline: requests with an earlier one expire by their own timers.
                deadline=max(wait.deadline for wait in waits),
                request_id=",".join(wait.request_id for wait in waits),
                trace=waits[0].trace,
            )
        except Exception as error:
            failure = without_tracebacks(error)
        call.ended_at = time.monotonic()
        # Only timeouts open the circuit: any other error is an answer.
        if not isinstance(failure, DeadlineExceededError):
            self._breaker.record_answer(served.model)
        end = 0
        for request in group:
            start, end = end, end + len(request.batch)
            if request.future.done():
                continue
            if failure:
                if isinstance(failure, DeadlineExceededError):
                    self._breaker.record_timeout(served.model)
                # Copy the error: a shared one would collect, and keep alive, the frames of all waiters.
                request.future.set_exception(copy.copy(failure))
            else:
                request.future.set_result(answers[start:end])


@dataclass(slots=True, eq=False)
class _Waiting:
    """Request that waits for a call."""

    batch: Batch
    wait: Wait
    future: asyncio.Future[list[Answer]]
    """Done before the call ends if the caller was cancelled or the deadline passed."""


@dataclass(slots=True)
class _BatchQueue:
    """Waiting requests of one key."""

    inflight: int = 0
    """Tasks that process the queue, each with one call in flight."""
    waiting: deque[_Waiting] = field(default_factory=deque)

    async def collect(self, quiet_iterations: int) -> None:
        """Yield until `quiet_iterations` event-loop iterations in a row add no request, at most 100 ms."""
        count, quiet, end = 0, 0, time.monotonic() + _MAX_COLLECT_SECONDS
        while quiet < quiet_iterations and time.monotonic() < end:
            quiet = 0 if len(self.waiting) > count else quiet + 1
            count = len(self.waiting)
            await asyncio.sleep(0)

    def next_group(self, max_images: int) -> list[_Waiting]:
        """Pop the oldest requests: up to `max_images` images, or a single request that has more."""
        group: list[_Waiting] = []
        images, size = 0, 0
        while self.waiting and len(group) < _MAX_REQUESTS:
            request = self.waiting[0]
            is_full = images + len(request.batch) > max_images or size + request.batch.nbytes > MAX_CALL_BYTES
            if group and is_full:
                break
            self.waiting.popleft()
            if not request.future.done():
                group.append(request)
                images += len(request.batch)
                size += request.batch.nbytes
        return group


class CircuitBreaker:
    """Opens a model's circuit after three timeouts in a row, so that further requests fail at once.

    An open circuit lets one request pass every `retry_seconds`; an answer closes it. Circuits are per model
    and version: a slow canary affects no other version. `clock` returns seconds, like time.monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, retry_seconds: float = 1.0) -> None:
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._timeouts: Counter[ModelRef] = Counter()
        """Timeouts in a row."""
        self._next_trials: dict[ModelRef, float] = {}
        """Earliest time of the next trial request of an open circuit, by the clock."""

    def check(self, model: ModelRef) -> None:
        """Raise UnavailableError if the circuit is open and no trial request is due."""
        if (timeouts := self._timeouts.get(model, 0)) >= _MAX_TIMEOUTS:
            now = self._clock()
            if now < self._next_trials.get(model, -math.inf):
                raise UnavailableError(f"circuit open: {model} timed out {timeouts} times in a row")
            self._next_trials[model] = now + self._retry_seconds

    def record_timeout(self, model: ModelRef) -> None:
        """Count a request that timed out."""
        if len(self._timeouts) >= _MAX_CIRCUITS:
            self._timeouts.clear()
            self._next_trials.clear()
        self._timeouts[model] += 1

    def record_answer(self, model: ModelRef) -> None:
        """Close the circuit."""
        self._timeouts.pop(model, None)
        self._next_trials.pop(model, None)


def default_version(settings: Settings, name: str) -> ModelRef:
    """Return a model's default: the version that its default label names, otherwise the newest one."""
    return ModelRef(name, version_label=settings.for_model(name).default_label or None)


def describe_missing(default: ModelRef, statuses: Sequence[VersionStatus]) -> str:
    """Return a sentence for a default that does not answer: versions are loading, or the label has none.

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


def in_share(share: float, request_id: str, purpose: bytes = b"") -> bool:
    """True for a share, 0..1, of the request IDs, by their hash: always for the same ones.

    The shares of different purposes, of at most 16 bytes, are independent of each other.
    """
    if not share:
        return False
    number = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8, person=purpose).digest())
    return number < share * 2**64
