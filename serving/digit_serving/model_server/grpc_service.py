"""The gRPC transport: TensorFlow Serving's PredictionService and ModelService."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigResponse

from digit_serving.model_server import config
from digit_serving.model_server.core import Core
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.model_server.metrics import Metrics

T = TypeVar("T")


class _Services:
    """The methods of both services, by their names."""

    def __init__(self, core: Core, metrics: Metrics) -> None:
        self._core = core
        self._metrics = metrics

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        remaining = context.time_remaining()
        deadline = float("inf") if remaining is None else time.monotonic() + remaining

        def predict() -> Any:
            with self._metrics.request(request.model_spec.name, "Predict", "GRPC"):
                return self._core.predict(request, deadline)

        return _answer(context, predict)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(context, lambda: self._core.metadata(request))

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(context, lambda: self._core.status(request))

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        if not request.config.HasField("model_config_list"):
            problem = "ServerModelConfig type not supported by HandleReloadConfigRequest."
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        _answer(context, lambda: self._core.reload(request.config))
        return ReloadConfigResponse(status={})

    def Classify(self, _: Any, context: grpc.ServicerContext) -> NoReturn:  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "This model server answers Predict only.")

    Regress = MultiInference = Classify


def _answer(context: grpc.ServicerContext, call: Callable[[], T]) -> T:
    try:
        return call()
    except ServingError as error:
        context.abort(error.code, error.message)


def start(options: Options, core: Core, metrics: Metrics) -> grpc.Server:
    """A server that listens on the port and the socket of the flags; ServingError where it can't."""
    addresses = [f"[::]:{options.port}"] if options.port else []
    addresses += [f"unix:{options.grpc_socket_path}"] if options.grpc_socket_path else []
    if not addresses:
        raise ServingError("server_options.grpc_port is not set.")
    threads = ThreadPoolExecutor(options.grpc_max_threads or 4 * (os.cpu_count() or 1))
    server, services = grpc.server(threads, options=_arguments(options)), _Services(core, metrics)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, server)
    if options.enable_grpc_healthcheck_service:
        serving = b"\x08\x01"  # HealthCheckResponse(status=SERVING): ports open when all models serve
        check = {"Check": grpc.unary_unary_rpc_method_handler(lambda request, context: serving)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),)
        )
    try:
        for address in addresses:
            _listen(server, address, options.ssl_config_file)
    except RuntimeError:
        raise ServingError(f"Failed to BuildAndStart gRPC server at {address}") from None
    server.start()
    return server


def _listen(server: grpc.Server, address: str, ssl_config_file: str) -> None:
    if not ssl_config_file:
        server.add_insecure_port(address)
        return
    ssl = config.read(ssl_config_file, config.new_message("SSLConfig"))
    pair, roots = (ssl.server_key.encode(), ssl.server_cert.encode()), ssl.custom_ca.encode() or None
    server.add_secure_port(address, grpc.ssl_server_credentials([pair], roots, ssl.client_verify))


def _arguments(options: Options) -> list[tuple[str, Any]]:
    pairs = [pair.partition("=") for pair in options.grpc_channel_arguments.split(",") if pair]
    given = [(key, int(value) if value.lstrip("-").isdigit() else value) for key, _, value in pairs]
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return [("grpc.so_reuseport", 0), *unlimited, *given]
