"""gRPC transport: TensorFlow Serving's PredictionService and ModelService on grpcio's server."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from digit_serving.errors import ServingError
from digit_serving.model_server import config
from digit_serving.model_server.budget import TimeLeft
from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.flags import Options


def start(options: Options, core: ServerCore) -> grpc.Server:
    """Start a server on the TCP port and the Unix socket that the flags name.

    While every thread of the server is busy, further calls end with RESOURCE_EXHAUSTED. Raises ServingError
    if the server can't start.
    """
    threads = options.grpc_max_threads or 4 * (os.cpu_count() or 1)
    arguments = list(config.read_channel_arguments(options).items())
    server = grpc.server(
        ThreadPoolExecutor(threads, "grpc"), options=arguments, maximum_concurrent_rpcs=threads
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(core), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Servicer(core), server)
    if options.enable_grpc_healthcheck_service:
        # The status is SERVING while the process runs: the port opens only once every model is available.
        checks = health.HealthServicer()
        for service in ("ModelService", "PredictionService"):
            checks.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    credentials = _credentials(options.ssl_config_file) if options.ssl_config_file else None
    host, addresses = options.host, []
    if options.port:
        addresses.append(f"{f'[{host}]' if ':' in host else host or '[::]'}:{options.port}")
    if options.grpc_socket_path:
        addresses.append(f"unix:{options.grpc_socket_path}")
    for address in addresses:
        try:
            if credentials:
                server.add_secure_port(address, credentials)
            else:
                server.add_insecure_port(address)
        except RuntimeError:
            raise ServingError(f"The gRPC server can't listen on {address}") from None
    server.start()
    return server


def _time_left(context: grpc.ServicerContext) -> TimeLeft:
    return lambda: context.time_remaining() if context.is_active() else 0.0


def _method(call: Callable[..., Any], *facts: Callable[[grpc.ServicerContext], Any]) -> Any:
    """Return a servicer's method that answers with `call`, and ends with the status of its ServingError.

    `call` gets the core, the request, and the facts about the call's context.
    """

    def answer(servicer: "Servicer", request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(servicer.core, request, *(fact(context) for fact in facts))
        except ServingError as error:
            context.abort(grpc.StatusCode[error.code], error.message)

    return answer


class Servicer(
    prediction_service_pb2_grpc.PredictionServiceServicer,  # type: ignore[misc]
    model_service_pb2_grpc.ModelServiceServicer,  # type: ignore[misc]
):
    """PredictionService and ModelService."""

    def __init__(self, core: ServerCore) -> None:
        self.core = core

    Predict = _method(ServerCore.predict, _time_left)
    GetModelMetadata = _method(ServerCore.metadata)
    GetModelStatus = _method(ServerCore.status)
    HandleReloadConfigRequest = _method(ServerCore.reload_config)
    Classify = Regress = MultiInference = _method(ServerCore.unimplemented)


def _credentials(path: str) -> grpc.ServerCredentials:
    ssl = config.read(path, "SSLConfig")
    pair = (ssl.server_key.encode(), ssl.server_cert.encode())
    try:
        return grpc.ssl_server_credentials([pair], ssl.custom_ca.encode() or None, ssl.client_verify)
    except ValueError as error:
        raise ServingError(f"{path}: {error}") from None
