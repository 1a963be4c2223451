"""Calls to a model server without their sending: requests, answers, and errors."""

import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import grpc

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
from digit_client.artifact.task_card import TaskCard
from digit_client.images.reading import Peaks
from digit_client.tfserving import codec
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
)

_logger = logging.getLogger("digit_client")

Metadata: TypeAlias = tuple[tuple[str, str], ...]

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


class Stub:
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


def metadata(request_id: str | None, trace: Mapping[str, str] = MappingProxyType({})) -> Metadata:
    return (*((("x-request-id", request_id),) if request_id else ()), *trace.items())


def log_predict(target: str, model: ModelRef, count: int, started: float, request_id: str | None) -> None:
    milliseconds = 1000 * (time.monotonic() - started)
    _logger.debug(
        "%s: Predict of %d images by %s in %.1f ms (request %s)",
        target,
        count,
        model,
        milliseconds,
        request_id,
    )


def status_request(model: ModelRef) -> GetModelStatusRequest:
    return GetModelStatusRequest(model_spec=codec.model_spec(model))


def metadata_request(model: ModelRef) -> GetModelMetadataRequest:
    return GetModelMetadataRequest(model_spec=codec.model_spec(model), metadata_field=["signature_def"])


def to_task(response: PredictResponse) -> TaskCard:
    try:
        return codec.decode_card(response)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"unusable task card from the model server: {error}") from error


def lacks_card(error: ServiceError) -> bool:
    """True if the error says that the model has no task card: it is one of the digits."""
    return error.reason == grpc.StatusCode.FAILED_PRECONDITION.name and "signature" in error.message


def to_predictions(response: PredictResponse, count: int, task: TaskCard) -> list[Prediction]:
    try:
        predictions = codec.decode(response, task)
    except ValueError as error:
        raise ServiceError(f"unusable answer from the model server: {error}") from error
    if len(predictions) != count:
        raise ServiceError(f"the model server gave {len(predictions)} answers for {count} images")
    return predictions


def to_peaks(response: PredictResponse) -> Peaks:
    try:
        return codec.decode_peaks(response)
    except ValueError as error:
        raise ServiceError(f"unusable answer from the reader: {error}") from error


def to_statuses(response: GetModelStatusResponse) -> list[VersionStatus]:
    statuses = [
        VersionStatus(
            status.version, ModelVersionStatus.State.Name(status.state), status.status.error_message
        )
        for status in response.model_version_status
    ]
    return sorted(statuses, key=lambda status: status.version, reverse=True)


def to_version(response: GetModelMetadataResponse) -> int:
    return int(response.model_spec.version.value)


def is_refused(error: grpc.RpcError) -> bool:
    """True if the server refused the call before any work."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and any(
        detail in (error.details() or "") for detail in _THREADS_EXHAUSTED
    )


def refused_backoff() -> float:
    return random.uniform(0, _MAX_REFUSED_BACKOFF)  # noqa: S311


def translate(error: grpc.RpcError, target: str) -> DigitError:
    # Errors of unary calls are grpc.Call objects too: these have code() and details().
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(f"the model server at {target} did not answer in time")
    # TensorFlow Serving reports an unknown version as NOT_FOUND, an unknown label as INVALID_ARGUMENT.
    if code is grpc.StatusCode.INVALID_ARGUMENT and "servable version label" in (details or ""):
        code = grpc.StatusCode.NOT_FOUND
    return _ERRORS.get(code, ServiceError)(f"the model server at {target}: {details}", reason=code.name)
