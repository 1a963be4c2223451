"""gRPC server in this process with the methods of TensorFlow Serving, and the messages that it answers."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from digit_core.tfserving import protos
from digit_core.tfserving.codec import CARD_OUTPUT
from tests.core.component_reader import encode

_DT_STRING = 7
"""tensorflow.DataType.DT_STRING."""


class GrpcModelServer:
    """gRPC server at the address `target`.

    The methods `predict`, `model_metadata` and `model_status` of a subclass answer its calls.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Method of each call."""
        # TensorFlow Serving takes messages of any size, too.
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
        self._server.add_generic_rpc_handlers((self,))  # type: ignore[arg-type]
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return the handler of a method, as grpc.GenericRpcHandler does."""
        methods: dict[str, tuple[str, Any]] = {
            "Predict": ("predict", protos.PredictRequest),
            "GetModelMetadata": ("model_metadata", protos.GetModelMetadataRequest),
            "GetModelStatus": ("model_status", protos.GetModelStatusRequest),
        }
        method = details.method.rpartition("/")[2]
        self.asked.append(method)
        name, request = methods[method]
        return grpc.unary_unary_rpc_method_handler(
            getattr(self, name), request.FromString, lambda response: response.SerializeToString()
        )

    def close(self) -> None:
        self._server.stop(0).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError


def abort_without_label(spec: protos.ModelSpec, context: grpc.ServicerContext) -> NoReturn:
    message = f"Unrecognized servable version label: {spec.version_label}"
    abort(context, grpc.StatusCode.INVALID_ARGUMENT, message)


def abort_without_signature(spec: protos.ModelSpec, context: grpc.ServicerContext) -> NoReturn:
    message = f'Serving signature name: "{spec.signature_name}" not found in signature def'
    abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)


def outputs_response(outputs: dict[str, NDArray[np.float32]], version: int = 1) -> protos.PredictResponse:
    """Build the response of these outputs."""
    response = protos.PredictResponse()
    response.model_spec.version.value = version
    for name, output in outputs.items():
        encode(output, response.outputs[name])
    return response


def card_response(card: str | bytes, version: int = 1, count: int = 1) -> protos.PredictResponse:
    """Build the response to a request for a task card, a JSON document, which is repeated `count` times."""
    response = outputs_response({}, version)
    tensor = response.outputs[CARD_OUTPUT]
    tensor.dtype = _DT_STRING
    tensor.tensor_shape.dim.add(size=count)
    tensor.string_val.extend([card.encode() if isinstance(card, str) else card] * count)
    return response


def request_input(request: protos.PredictRequest) -> NDArray[Any]:
    """Return a request's input, of either signature."""
    (tensor,) = request.inputs.values()
    dtype = np.uint8 if "images" in request.inputs else np.float32
    return np.frombuffer(tensor.tensor_content, dtype).reshape([dim.size for dim in tensor.tensor_shape.dim])
