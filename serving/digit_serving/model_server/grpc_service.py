"""The gRPC transport: TensorFlow Serving's PredictionService and ModelService."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
from tensorflow_serving.apis.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import add_PredictionServiceServicer_to_server

from digit_serving.model_server import config
from digit_serving.model_server.core import Core
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options

_SERVING = b"\x08\x01"  # a HealthCheckResponse: the ports open when every model serves


def start(options: Options, core: Core) -> grpc.Server:
    """A server that listens on the port and the socket of the flags; ServingError where it can't."""
    addresses = {
        f"[::]:{options.port}": options.port,
        f"unix:{options.grpc_socket_path}": options.grpc_socket_path,
    }
    threads = ThreadPoolExecutor(options.grpc_max_threads or 4 * (os.cpu_count() or 1))
    server, services = (
        grpc.server(threads, options=_arguments(options.grpc_channel_arguments)),
        _services(core),
    )
    add_PredictionServiceServicer_to_server(services, server)
    add_ModelServiceServicer_to_server(services, server)
    if options.enable_grpc_healthcheck_service:
        check: Any = grpc.unary_unary_rpc_method_handler(lambda _, __: _SERVING)
        health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
        server.add_generic_rpc_handlers((health,))
    try:
        for address in filter(addresses.get, addresses):
            _listen(server, address, options.ssl_config_file)
    except RuntimeError:
        raise ServingError(f"Failed to BuildAndStart gRPC server at {address}") from None
    server.start()
    return server


def _services(core: Core) -> SimpleNamespace:
    def predict(request: PredictRequest, deadline: float) -> PredictResponse:
        with core.metrics.request(request.model_spec.name, "Predict", "GRPC"):
            return core.predict(request, deadline)

    return SimpleNamespace(
        Predict=_answering(predict),
        GetModelMetadata=_answering(lambda request, _: core.metadata(request)),
        GetModelStatus=_answering(lambda request, _: core.status(request)),
        HandleReloadConfigRequest=_answering(lambda request, _: core.reconfigure(request)),
        **dict.fromkeys(("Classify", "Regress", "MultiInference"), _answering(lambda *_: core.refuse())),
    )


def _answering(call: Callable[[Any, float], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        remaining = context.time_remaining()
        try:
            return call(request, float("inf") if remaining is None else time.monotonic() + remaining)
        except ServingError as error:
            context.abort(error.code, error.message)

    return answer


def _listen(server: grpc.Server, address: str, ssl_config_file: str) -> None:
    if not ssl_config_file:
        server.add_insecure_port(address)
        return
    ssl = config.read(ssl_config_file, "SSLConfig")
    pair, roots = (ssl.server_key.encode(), ssl.server_cert.encode()), ssl.custom_ca.encode() or None
    server.add_secure_port(address, grpc.ssl_server_credentials([pair], roots, ssl.client_verify))


def _arguments(text: str) -> list[tuple[str, Any]]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    given = [(key, int(value) if value.lstrip("-").isdigit() else value) for key, _, value in pairs]
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return [("grpc.so_reuseport", 0), *unlimited, *given]
