"""Parts of calls to a model server: channels, methods, answers and errors; `connection` sends the calls.

A channel balances the load over all addresses of a name, retries, keeps connections alive and reconnects.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from digit_core.errors import (
    AuthenticationError,
    DeadlineExceededError,
    DigitError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_core.results import ModelVersion
from digit_core.tfserving.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
)

_SERVICE_CONFIG = {
    # round_robin spreads the calls over all addresses of a name and skips addresses that can't be reached.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            # Predictions are idempotent: a call that a terminating server drops goes to another one at once.
            # A call with RESOURCE_EXHAUSTED may have cost the server work, or fail again. Connection retries
            # those that the server refused before any work; gRPC can't tell them from the others.
            "retryPolicy": {
                # 15, 60 and 240 ms: as long as a reconnection takes after a restart.
                "maxAttempts": 4,
                "initialBackoff": "0.015s",
                "maxBackoff": "0.25s",
                "backoffMultiplier": 4,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # A failure takes one token, a success returns a tenth; gRPC retries only above half of maxTokens: retries
    # must not worsen an outage of all servers. Waiting for its end is left to the callers.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}

_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # Largest request that gRPC buffers for a retry; the default is 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # An error message repeats the caller's label; percent-encoding in the trailers triples its bytes.
    ("grpc.max_metadata_size", 256 * 1024),
    ("grpc.absolute_max_metadata_size", 256 * 1024),
    # A hung server keeps its connections open. A keepalive ping after 1 s without data, with 2 s for its
    # answer, leaves 2 s of a deadline of 5 s for another server. A server that does not permit this closes
    # connections (GOAWAY, too_many_pings). Hence one ping after each call's start, and then one a minute.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.http2.max_pings_without_data", 1),
    ("grpc.keepalive_timeout_ms", 2000),
    # Bandwidth-estimation pings time out after a minute by default and block keepalive pings meanwhile.
    ("grpc.http2.ping_timeout_ms", 2000),
    # The default reconnect backoff grows to two minutes. 250 ms bound the time between the first gateway
    # process that reconnects and the last; each has its own channel.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # gRPC resolves the name again when a connection ends; the default allows that twice a minute. After a
    # resolution that fails, AsyncConnection replaces the channel.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)

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
_UNREACHABLE = ("errors resolving", "connections to all backends failing")
"""Details of UNAVAILABLE from a channel without a usable address."""
REPLACE_SECONDS = 1.0
"""Age from which a channel without a usable address is replaced. gRPC resolves a name that it could not
resolve, or whose addresses fail, after pauses that grow to two minutes; a new channel resolves it at once."""
MAX_REFUSED_BACKOFF = 0.02
"""Longest wait before the second attempt of a refused call, in seconds. The wait is random: calls that were
refused together should not come back together."""


@dataclass(frozen=True, slots=True)
class VersionStatus(ModelVersion):
    """Status of one model version, with the error that ended it."""

    error: str


def check_target(target: str) -> str:
    """Return the target. Raise ValueError for an HTTP URL."""
    if target.startswith(("http://", "https://")):
        raise ValueError(f"the gRPC address must be host:port, such as 127.0.0.1:8500, not {target!r}")
    return target


def connect(target: str, credentials: grpc.ChannelCredentials | None, api: Any) -> Any:
    """Create a channel to host:port, unix:path, or another gRPC target, without connecting yet.

    `api` is the module `grpc`, or `grpc.aio` for the running event loop. gRPC finds new servers by resolving
    the name again when a server closes a connection: as it stops, or at the maximum connection age
    (`--grpc_channel_arguments=grpc.max_connection_age_ms=30000`).
    """
    if credentials:
        return api.secure_channel(check_target(target), credentials, options=_OPTIONS)
    return api.insecure_channel(check_target(target), options=_OPTIONS)


class Stub:
    """gRPC stub of the three methods, wrapped by `awaitable` so that they can be awaited."""

    def __init__(self, channel: Any, awaitable: Callable[[Any], Any]) -> None:
        def method(name: str, request: Any, response: Any) -> Any:
            return awaitable(
                channel.unary_unary(
                    f"/tensorflow.serving.{name}",
                    request_serializer=request.SerializeToString,
                    response_deserializer=response.FromString,
                )
            )

        self.predict = method("PredictionService/Predict", PredictRequest, PredictResponse)
        self.metadata = method(
            "PredictionService/GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse
        )
        self.status = method("ModelService/GetModelStatus", GetModelStatusRequest, GetModelStatusResponse)


def lacks_signature(error: ServiceError) -> bool:
    """True if the error says that the version has no task card, or no layers: it lacks the signature."""
    return error.reason == grpc.StatusCode.FAILED_PRECONDITION.name and "signature" in error.message


def to_statuses(response: GetModelStatusResponse) -> list[VersionStatus]:
    statuses = [
        VersionStatus(
            status.version, ModelVersionStatus.State.Name(status.state), status.status.error_message
        )
        for status in response.model_version_status
    ]
    return sorted(statuses, key=lambda status: status.version, reverse=True)


def is_refused(error: grpc.RpcError) -> bool:
    """True if the server refused the call before any work."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and any(
        detail in (error.details() or "") for detail in _THREADS_EXHAUSTED
    )


def is_unreachable(error: grpc.RpcError) -> bool:
    """True if the channel has no usable address."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and any(
        detail in (error.details() or "") for detail in _UNREACHABLE
    )


def translate(error: grpc.RpcError, target: str) -> DigitError:
    # Errors of unary calls are grpc.Call objects too: these have code() and details().
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(f"the model server at {target} did not answer in time")
    if is_unreachable(error):
        # The reason is the last part of "…; last error: UNKNOWN: ipv4:…: Failed to connect …: refused".
        reason = str(details).rpartition(": ")[2].rstrip("]")
        way_out = "start it, e.g. by `digits up`, or name another address"
        message = f"the model server at {target} does not answer ({reason}): {way_out}"
        return UnavailableError(message, reason=code.name)
    # TensorFlow Serving reports an unknown version as NOT_FOUND, an unknown label as INVALID_ARGUMENT.
    if code is grpc.StatusCode.INVALID_ARGUMENT and "servable version label" in (details or ""):
        code = grpc.StatusCode.NOT_FOUND
    return _ERRORS.get(code, ServiceError)(f"the model server at {target}: {details}", reason=code.name)
