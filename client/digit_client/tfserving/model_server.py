"""Blocking and asyncio connections to TensorFlow Serving. gRPC errors become errors of this package."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import grpc
import grpc.aio

from digit_client._exceptions import (
    AuthenticationError,
    DeadlineExceededError,
    DigitError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_client._types import Prediction
from digit_client.artifact.task_card import DIGITS, TaskCard
from digit_client.tfserving import channel, codec
from digit_client.tfserving.codec import Batch, ModelRef
from digit_client.tfserving.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
)
from digit_client.tfserving.tasks import TaskCache

_logger = logging.getLogger("digit_client")

_Metadata: TypeAlias = tuple[tuple[str, str], ...]

_ERRORS: dict[grpc.StatusCode, type[ServiceError]] = {
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: AuthenticationError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    # A server that shuts down cancels its calls.
    grpc.StatusCode.CANCELLED: UnavailableError,
}

_THREADS_EXHAUSTED = ("Server Threadpool Exhausted", "Concurrent RPC limit exceeded")
"""Details of RESOURCE_EXHAUSTED from a server whose threads (`--grpc_max_threads`) are all busy: TensorFlow
Serving, and the drop-in. Other calls with this status may have cost the server work, or would fail again: one
that lacks memory, for example."""
_MAX_REFUSED_BACKOFF = 0.02
"""Longest wait before the second attempt of a refused call, in seconds. The wait is random: calls that were
refused together should not come back together."""


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """Status of one model version: `state` is START, LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str
    error: str

    @property
    def is_available(self) -> bool:
        """True if the version answers predictions."""
        return self.state == "AVAILABLE"


class ModelServer:
    """Blocking connection to the server at `target` (host:port or unix:path). Thread-safe.

    Calls are spread over all addresses of the target's name. A call that a server refuses because its threads
    are all busy is sent once more, to the next address. `timeout` in seconds bounds a call with all its
    retries. Every failure is a DigitError.
    """

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.target = target
        self._channel = channel.connect(target, credentials)
        self._stub = _Stub(self._channel)
        self._tasks = TaskCache()

    def predict(
        self, batch: Batch, model: ModelRef, *, timeout: float, request_id: str | None = None
    ) -> list[Prediction]:
        """Return the predictions for the n images of the batch, in their order.

        `request_id` is sent as metadata.
        """
        started = time.monotonic()
        with self._tasks.forget_if_unfit(model.name):
            request = codec.encode(batch, model)
            response = self._call(self._stub.predict, request, timeout, _metadata(request_id))
            answered = ModelRef(model.name, codec.version_of(response))
            left = started + timeout - time.monotonic()
            task = self._tasks.get(answered) or self._fetch_task(answered, left)
            self._tasks.remember(model, answered.version, task)
            _log_predict(self.target, answered, len(batch), started, request_id)
            return _to_predictions(response, len(batch), task)

    def known_task(self, model: ModelRef) -> TaskCard | None:
        """Return the model's task card as of its latest answer, None before the first one."""
        return self._tasks.get(model)

    def task(self, model: ModelRef, *, timeout: float) -> TaskCard:
        """Return the model's task card, as of its latest answer; without an answer yet, ask for it."""
        return self.known_task(model) or self._fetch_task(model, timeout)

    def latest_task(self, model: ModelRef, *, timeout: float) -> TaskCard:
        """Return the task card of the version that answers now."""
        version = self.resolve(model, timeout=timeout)
        task = self.task(ModelRef(model.name, version), timeout=timeout)
        return self._tasks.remember(model, version, task)

    def versions(self, model: ModelRef, *, timeout: float) -> list[VersionStatus]:
        """Return the status of every version of the model, newest first."""
        return _to_statuses(self._call(self._stub.status, _status_request(model), timeout))

    def resolve(self, model: ModelRef, *, timeout: float) -> int:
        """Return the version that the reference resolves to. Raise ModelNotFoundError if there is none."""
        return _to_version(self._call(self._stub.metadata, _metadata_request(model), timeout))

    def close(self) -> None:
        """Close the connection; calls in flight fail."""
        self._channel.close()

    def _fetch_task(self, model: ModelRef, timeout: float) -> TaskCard:
        try:
            response = self._call(self._stub.predict, codec.encode_card_request(model), timeout)
        except ServiceError as error:
            if not _lacks_card(error):
                raise
            task, version = DIGITS, model.version
        else:
            task, version = _to_task(response), codec.version_of(response)
        return self._tasks.remember(model, version, task)

    def _call(
        self, method: Any, request: object, timeout: float, metadata: _Metadata = (), attempts: int = 2
    ) -> Any:
        started = time.monotonic()
        try:
            return method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            if attempts == 1 or not _is_refused(error):
                raise _translate(error, self.target) from error
        time.sleep(_refused_backoff())
        left = started + timeout - time.monotonic()
        return self._call(method, request, left, metadata, attempts - 1)


class AsyncModelServer:
    """asyncio connection: ModelServer with coroutines, bound to the event loop of its creation."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.target = target
        self._channel = channel.connect_async(target, credentials)
        self._stub = _Stub(self._channel)
        self._tasks = TaskCache()
        self._fetching = asyncio.Lock()

    async def predict(
        self,
        batch: Batch,
        model: ModelRef,
        *,
        timeout: float,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> list[Prediction]:
        """Return the predictions for the n images of the batch, in their order.

        `request_id` and `trace` (W3C trace context headers) are sent as metadata.
        """
        started = time.monotonic()
        with self._tasks.forget_if_unfit(model.name):
            request, metadata = codec.encode(batch, model), _metadata(request_id, trace or {})
            response = await self._call(self._stub.predict, request, timeout, metadata)
            answered = ModelRef(model.name, codec.version_of(response))
            left = started + timeout - time.monotonic()
            task = self._tasks.get(answered) or await self._fetch_task(answered, left)
            self._tasks.remember(model, answered.version, task)
            _log_predict(self.target, answered, len(batch), started, request_id)
            return _to_predictions(response, len(batch), task)

    def known_task(self, model: ModelRef) -> TaskCard | None:
        """Return the model's task card as of its latest answer, None before the first one."""
        return self._tasks.get(model)

    async def task(self, model: ModelRef, *, timeout: float) -> TaskCard:
        """Return the model's task card, as of its latest answer; without an answer yet, ask for it."""
        return self.known_task(model) or await self._fetch_task(model, timeout)

    async def latest_task(self, model: ModelRef, *, timeout: float) -> TaskCard:
        """Return the task card of the version that answers now."""
        version = await self.resolve(model, timeout=timeout)
        task = await self.task(ModelRef(model.name, version), timeout=timeout)
        return self._tasks.remember(model, version, task)

    async def versions(self, model: ModelRef, *, timeout: float) -> list[VersionStatus]:
        """Return the status of every version of the model, newest first."""
        return _to_statuses(await self._call(self._stub.status, _status_request(model), timeout))

    async def resolve(self, model: ModelRef, *, timeout: float) -> int:
        """Return the version that the reference resolves to. Raise ModelNotFoundError if there is none."""
        return _to_version(await self._call(self._stub.metadata, _metadata_request(model), timeout))

    async def close(self) -> None:
        """Close the connection; calls in flight fail."""
        await self._channel.close()

    async def _fetch_task(self, model: ModelRef, timeout: float) -> TaskCard:
        try:
            # One request asks for the card; concurrent ones wait for its answer.
            async with asyncio.timeout(timeout), self._fetching:
                return self._tasks.get(model) or await self._ask_for_card(model, timeout)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"the model server at {self.target} did not answer in time"
            ) from error

    async def _ask_for_card(self, model: ModelRef, timeout: float) -> TaskCard:
        try:
            response = await self._call(self._stub.predict, codec.encode_card_request(model), timeout)
        except ServiceError as error:
            if not _lacks_card(error):
                raise
            task, version = DIGITS, model.version
        else:
            task, version = _to_task(response), codec.version_of(response)
        return self._tasks.remember(model, version, task)

    async def _call(
        self, method: Any, request: object, timeout: float, metadata: _Metadata = (), attempts: int = 2
    ) -> Any:
        started = time.monotonic()
        try:
            return await method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            if attempts == 1 or not _is_refused(error):
                raise _translate(error, self.target) from error
        await asyncio.sleep(_refused_backoff())
        left = started + timeout - time.monotonic()
        return await self._call(method, request, left, metadata, attempts - 1)


class _Stub:
    """gRPC stub of the three methods, blocking or asyncio like its channel."""

    def __init__(self, grpc_channel: Any) -> None:
        def method(name: str, request: Any, response: Any) -> Any:
            return grpc_channel.unary_unary(
                f"/tensorflow.serving.{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )

        self.predict = method("PredictionService/Predict", PredictRequest, PredictResponse)
        self.metadata = method(
            "PredictionService/GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse
        )
        self.status = method("ModelService/GetModelStatus", GetModelStatusRequest, GetModelStatusResponse)


def _metadata(request_id: str | None, trace: Mapping[str, str] = MappingProxyType({})) -> _Metadata:
    return (*((("x-request-id", request_id),) if request_id else ()), *trace.items())


def _log_predict(target: str, model: ModelRef, count: int, started: float, request_id: str | None) -> None:
    milliseconds = 1000 * (time.monotonic() - started)
    _logger.debug(
        "%s: Predict of %d images by %s in %.1f ms (request %s)",
        target,
        count,
        model,
        milliseconds,
        request_id,
    )


def _status_request(model: ModelRef) -> GetModelStatusRequest:
    return GetModelStatusRequest(model_spec=codec.model_spec(model))


def _metadata_request(model: ModelRef) -> GetModelMetadataRequest:
    return GetModelMetadataRequest(model_spec=codec.model_spec(model), metadata_field=["signature_def"])


def _to_task(response: PredictResponse) -> TaskCard:
    try:
        return codec.decode_card(response)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"unusable task card from the model server: {error}") from error


def _lacks_card(error: ServiceError) -> bool:
    """True if the error says that the model has no card: it is the digits'."""
    return error.reason == grpc.StatusCode.FAILED_PRECONDITION.name and "signature" in error.message


def _to_predictions(response: PredictResponse, count: int, task: TaskCard) -> list[Prediction]:
    try:
        predictions = codec.decode(response, task.labels)
    except ValueError as error:
        raise ServiceError(f"unusable answer from the model server: {error}") from error
    if len(predictions) != count:
        raise ServiceError(f"the model server gave {len(predictions)} answers for {count} images")
    return predictions


def _to_statuses(response: GetModelStatusResponse) -> list[VersionStatus]:
    statuses = [
        VersionStatus(
            status.version, ModelVersionStatus.State.Name(status.state), status.status.error_message
        )
        for status in response.model_version_status
    ]
    return sorted(statuses, key=lambda status: status.version, reverse=True)


def _to_version(response: GetModelMetadataResponse) -> int:
    return int(response.model_spec.version.value)


def _is_refused(error: grpc.RpcError) -> bool:
    """True if the server refused the call before any work."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and any(
        detail in (error.details() or "") for detail in _THREADS_EXHAUSTED
    )


def _refused_backoff() -> float:
    return random.uniform(0, _MAX_REFUSED_BACKOFF)  # noqa: S311


def _translate(error: grpc.RpcError, target: str) -> DigitError:
    # Errors of unary calls are grpc.Call objects too: these have code() and details().
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(f"the model server at {target} did not answer in time")
    # TensorFlow Serving reports an unknown version as NOT_FOUND, an unknown label as INVALID_ARGUMENT.
    if code is grpc.StatusCode.INVALID_ARGUMENT and "servable version label" in (details or ""):
        code = grpc.StatusCode.NOT_FOUND
    return _ERRORS.get(code, ServiceError)(f"the model server at {target}: {details}", reason=code.name)
