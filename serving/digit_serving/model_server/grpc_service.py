"""The gRPC transport: TensorFlow Serving's PredictionService and ModelService."""

import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from grpc import StatusCode
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from digit_serving import sockets
from digit_serving.model_server import config
from digit_serving.model_server.core import Core
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.unary.calls import Handler, StatusError
from digit_serving.unary.server import Server

log = logging.getLogger(__name__)

_SERVING = b"\x08\x01"  # a HealthCheckResponse: the ports open when every model serves
_AGE, _AGE_GRACE = "grpc.max_connection_age_ms", "grpc.max_connection_age_grace_ms"


def start(options: Options, core: Core, host: str) -> Server:
    """A server that listens on the port and the socket of the flags; ServingError where it can't."""
    handlers = _handlers(core)
    if options.enable_grpc_healthcheck_service:
        handlers["/grpc.health.v1.Health/Check"] = lambda *_: _SERVING
    seconds = _ages(options.grpc_channel_arguments)
    threads = options.grpc_max_threads or 4 * (os.cpu_count() or 1)
    server = Server(handlers, threads, max_age=seconds[_AGE], age_grace=seconds[_AGE_GRACE])
    address = options.ssl_config_file
    try:
        tls = _tls(options.ssl_config_file) if options.ssl_config_file else None
        if options.port:
            address = f"{host or '[::]'}:{options.port}"
            server.listen(sockets.tcp(host, options.port), tls)
        if options.grpc_socket_path:
            address = f"unix:{options.grpc_socket_path}"
            server.listen(sockets.unix(options.grpc_socket_path), tls)
    except OSError as error:
        log.error("%s: %s", address, error)
        raise ServingError(f"Failed to BuildAndStart gRPC server at {address}") from None
    return server


def _handlers(core: Core) -> dict[str, Handler]:
    def predict(request: PredictRequest, deadline: float) -> PredictResponse:
        with core.metrics.request(request.model_spec.name, "Predict", "GRPC"):
            return core.predict(request, deadline)

    calls: dict[str, tuple[Any, Callable[[Any, float], Any]]] = {
        "PredictionService/Predict": (PredictRequest, predict),
        "PredictionService/GetModelMetadata": (
            GetModelMetadataRequest,
            lambda asked, _: core.metadata(asked),
        ),
        "PredictionService/Classify": (Empty, lambda *_: core.refuse()),
        "PredictionService/Regress": (Empty, lambda *_: core.refuse()),
        "PredictionService/MultiInference": (Empty, lambda *_: core.refuse()),
        "ModelService/GetModelStatus": (GetModelStatusRequest, lambda asked, _: core.status(asked)),
        "ModelService/HandleReloadConfigRequest": (
            ReloadConfigRequest,
            lambda asked, _: core.reconfigure(asked),
        ),
    }
    return {f"/tensorflow.serving.{name}": _answering(*call) for name, call in calls.items()}


def _answering(kind: Any, call: Callable[[Any, float], Any]) -> Handler:
    def answer(message: bytes, deadline: float) -> bytes:
        try:
            return call(kind.FromString(message), deadline).SerializeToString()  # type: ignore[no-any-return]
        except DecodeError:
            raise StatusError(StatusCode.INTERNAL, "Exception deserializing request!") from None
        except ServingError as error:
            raise StatusError(error.code, error.message) from None

    return answer


def _tls(path: str) -> ssl.SSLContext:
    given = config.read(path, "SSLConfig")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    if given.custom_ca:
        context.load_verify_locations(cadata=given.custom_ca)
    if given.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    with TemporaryDirectory() as folder:  # the library reads keys from files only
        pair = Path(folder) / "pair"
        pair.touch(0o600)
        pair.write_text(f"{given.server_key}\n{given.server_cert}")
        context.load_cert_chain(pair)
    return context


def _ages(text: str) -> dict[str, float]:
    """Seconds for the two arguments that act here."""
    seconds = dict.fromkeys((_AGE, _AGE_GRACE), float("inf"))
    for name, _, value in (pair.partition("=") for pair in text.split(",") if pair):
        if name not in seconds:
            log.warning("--grpc_channel_arguments: %s has no effect here", name)
        elif not value.isdecimal():
            raise ServingError(f"--grpc_channel_arguments: {name} is no number of milliseconds: {value!r}")
        else:
            seconds[name] = int(value) / 1000
    return seconds
