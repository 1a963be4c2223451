"""A connection to TensorFlow Serving over gRPC: arrays in, probabilities out, errors of this package."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from digit_client import channel, predictions, wire
from digit_client.errors import (
    DeadlineExceededError,
    DigitError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_client.predictions import Prediction
from digit_client.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
)
from digit_client.wire import Batch, ModelRef

_ERRORS: dict[grpc.StatusCode, type[ServiceError]] = {
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    # What a server that shuts down says to the calls that it drops.
    grpc.StatusCode.CANCELLED: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A version that the server knows: `state` is START, LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str
    error: str

    @property
    def is_available(self) -> bool:
        """Whether it answers predictions."""
        return self.state == "AVAILABLE"


class ModelServer:
    """A connection to the server at `target` (host:port or unix:path). Threads may share it.

    Where a name stands for several servers, each gets its share of the calls. Every call is bounded by
    `timeout` in seconds and raises only errors of this package. `connect` opens the channel: a grpc.Channel,
    or what makes unary calls as one does.
    """

    def __init__(self, target: str, connect: Callable[[str], Any] = channel.connect) -> None:
        self.target = target
        self._channel = connect(target)
        self._predict = self._method("PredictionService/Predict", PredictRequest, PredictResponse)
        self._metadata = self._method(
            "PredictionService/GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse
        )
        self._status = self._method(
            "ModelService/GetModelStatus", GetModelStatusRequest, GetModelStatusResponse
        )

    def predict(
        self,
        batch: Batch,
        model: ModelRef,
        *,
        timeout: float,
        request_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> list[Prediction]:
        """The predictions for the n images of the batch, in their order.

        `trace` holds W3C's headers of the trace that the call is part of.
        """
        metadata = (*((("x-request-id", request_id),) if request_id else ()), *(trace or {}).items())
        response = self._call(self._predict, wire.encode(batch, model), timeout, metadata)
        try:
            answers = predictions.decode(*wire.decode(response))
        except ValueError as error:
            raise ServiceError(f"unusable answer from the model server: {error}") from error
        if len(answers) != len(batch):
            raise ServiceError(f"the model server gave {len(answers)} answers for {len(batch)} images")
        return answers

    def versions(self, model: ModelRef, *, timeout: float) -> list[VersionStatus]:
        """Every version of the model that the server knows, newest first."""
        request = GetModelStatusRequest(model_spec=wire.model_spec(model))
        response = self._call(self._status, request, timeout)
        statuses = [
            VersionStatus(
                status.version, ModelVersionStatus.State.Name(status.state), status.status.error_message
            )
            for status in response.model_version_status
        ]
        return sorted(statuses, key=lambda status: status.version, reverse=True)

    def resolve(self, model: ModelRef, *, timeout: float) -> int:
        """The version that would answer for this reference. Raises ModelNotFoundError where none would."""
        request = GetModelMetadataRequest(model_spec=wire.model_spec(model), metadata_field=["signature_def"])
        response = self._call(self._metadata, request, timeout)
        return int(response.model_spec.version.value)

    def close(self) -> None:
        """Close the connection; calls still out fail."""
        self._channel.close()

    def _method(self, name: str, request: Any, response: Any) -> Callable[..., Any]:
        method: Callable[..., Any] = self._channel.unary_unary(
            f"/tensorflow.serving.{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return method

    def _call(
        self,
        method: Callable[..., Any],
        request: object,
        timeout: float,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        try:
            return method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise _translate(error, self.target) from error


def _translate(error: grpc.RpcError, target: str) -> DigitError:
    # Every error that a unary call raises is a grpc.Call as well.
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(f"the model server at {target} did not answer in time")
    # TensorFlow Serving calls an unknown version not found, but an unknown label an invalid argument.
    if code is grpc.StatusCode.INVALID_ARGUMENT and "servable version label" in (details or ""):
        code = grpc.StatusCode.NOT_FOUND
    return _ERRORS.get(code, ServiceError)(f"the model server at {target}: {details}", reason=code.name)
