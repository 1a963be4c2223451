"""Model server in this process: TensorFlow Serving's gRPC methods over a linear model in NumPy."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from digit_client.tfserving.codec import IS_DIGIT_OUTPUT, OUTPUT
from digit_client.tfserving.protos import (
    DT_FLOAT,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
    TensorProto,
)

NAME, VERSION = "digits", 1


class LinearModelServer:
    """gRPC server of version 1 of the model "digits": a ridge regression from pixels to labels.

    With `with_is_digit` the model also gives `is_digit`: above 0.5 if the image's cosine similarity to an
    image of the regression is above `min_similarity`, which two digits on one image don't reach. `delay` in
    seconds precedes every answer; `failures` are status codes for the next calls, one each.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.uint8], *, with_is_digit: bool = False
    ) -> None:
        self.min_similarity = 0.7
        self.delay = 0.0
        self.failures: list[grpc.StatusCode] = []
        self.calls = 0
        inputs = _with_bias(images.reshape(len(images), -1).astype(np.float32) / np.float32(255))
        targets = np.eye(10, dtype=np.float32)[labels]
        ridge = 10 * np.eye(inputs.shape[1], dtype=np.float32)
        self._weights = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets)
        self._digits = _with_unit_norm(inputs[:, :-1]) if with_is_digit else None
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers(
            (
                _service(
                    "PredictionService",
                    Predict=(self._predict, PredictRequest, PredictResponse),
                    GetModelMetadata=(self._metadata, GetModelMetadataRequest, GetModelMetadataResponse),
                ),
                _service(
                    "ModelService",
                    GetModelStatus=(self._status, GetModelStatusRequest, GetModelStatusResponse),
                ),
            )
        )
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def _predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        self._check(request.model_spec, context)
        is_images = request.model_spec.signature_name == "images"
        tensor = request.inputs["images" if is_images else "pixels"]
        values = np.frombuffer(tensor.tensor_content, np.uint8 if is_images else np.float32)
        rows = values.reshape(tensor.tensor_shape.dim[0].size, -1).astype(np.float32)
        pixels = rows / np.float32(255 if is_images else 1)
        scores = np.exp(10 * (_with_bias(pixels) @ self._weights))
        probabilities = scores / scores.sum(axis=1, keepdims=True)
        response = PredictResponse(model_spec=_version_spec())
        _encode(probabilities, response.outputs[OUTPUT])
        if self._digits is not None:
            similarity = (_with_unit_norm(pixels) @ self._digits.T).max(axis=1)
            is_digit = 1 / (1 + np.exp(40 * (self.min_similarity - similarity)))
            _encode(is_digit, response.outputs[IS_DIGIT_OUTPUT])
        return response

    def _metadata(
        self, request: GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> GetModelMetadataResponse:
        self._check(request.model_spec, context)
        return GetModelMetadataResponse(model_spec=_version_spec())

    def _status(
        self, request: GetModelStatusRequest, context: grpc.ServicerContext
    ) -> GetModelStatusResponse:
        self._check(request.model_spec, context)
        status = ModelVersionStatus(version=VERSION, state=ModelVersionStatus.State.Value("AVAILABLE"))
        return GetModelStatusResponse(model_version_status=[status])

    def _check(self, spec: ModelSpec, context: grpc.ServicerContext) -> None:
        self.calls += 1
        time.sleep(self.delay)
        if self.failures:
            _abort(context, self.failures.pop(0), "injected")
        if spec.name != NAME or (spec.HasField("version") and spec.version.value != VERSION):
            _abort(context, grpc.StatusCode.NOT_FOUND, "Servable not found")
        if spec.version_label:
            message = f"Unrecognized servable version label: {spec.version_label}"
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, message)


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError


def _version_spec() -> ModelSpec:
    spec = ModelSpec(name=NAME)
    spec.version.value = VERSION
    return spec


def _encode(array: NDArray[np.floating], tensor: TensorProto) -> None:
    tensor.dtype = DT_FLOAT
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = array.astype(np.float32).tobytes()


def _with_unit_norm(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.sqrt((pixels**2).sum(axis=1, keepdims=True))
    normalized: NDArray[np.float32] = pixels / np.maximum(norms, np.float32(1e-6))
    return normalized


def _with_bias(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hstack((pixels, np.ones((len(pixels), 1), np.float32)))


def _service(name: str, **methods: tuple[Callable[..., Any], Any, Any]) -> grpc.GenericRpcHandler:
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(function, request.FromString, response.SerializeToString)
        for method, (function, request, response) in methods.items()
    }
    return grpc.method_handlers_generic_handler(f"tensorflow.serving.{name}", handlers)
