"""Model server in this process: TensorFlow Serving's gRPC methods over a linear model in NumPy."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.models_config import STABLE
from digit_core.artifact.task_card import DIGITS, READER_NAME, TaskCard
from digit_core.tfserving.codec import CARD_INPUT, CARD_OUTPUT, CARD_SIGNATURE, IS_DIGIT_OUTPUT, OUTPUT
from digit_core.tfserving.protos import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
)
from tests.core.component_reader import answer_page, encode
from tests.core.linear_model import LinearModel

DT_STRING = 7
"""tensorflow.DataType.DT_STRING."""


class LinearModelServer:
    """gRPC server of version 1 of a LinearModel.

    Without `task` the model is "digits", which has no task card; with it, the model has the card's name, and
    gives `card`, the card's JSON. A reader is beside it while `has_reader` is set. `delay` in seconds
    precedes every answer; `failures` are status codes for the next calls, one each, with `failure_details`.
    `card_calls` counts the calls for the task card, `calls` all others; `request_ids` has those that calls
    sent.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        *,
        with_is_digit: bool = False,
        task: TaskCard | None = None,
    ) -> None:
        self.delay = 0.0
        self.has_reader = True
        self.failures: list[grpc.StatusCode] = []
        self.failure_details = "injected"
        self.calls = self.card_calls = 0
        self.request_ids: list[str] = []
        self.card: bytes | None = None
        self._name, self._version = (task or DIGITS).name, 0
        self.publish(images, labels, with_is_digit=with_is_digit, task=task)
        # TensorFlow Serving takes messages of any size, too.
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
        self._server.add_generic_rpc_handlers((self,))  # type: ignore[arg-type]
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def publish(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        *,
        with_is_digit: bool = False,
        task: TaskCard | None = None,
    ) -> None:
        """Replace the served version by the next one, which may have another task but keeps the name."""
        self._task = task or DIGITS
        self.card = json.dumps(task.to_document()).encode() if task else None
        self.model = LinearModel(images, labels, with_is_digit=with_is_digit, task=self._task)
        self._version += 1

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return the handler of a method, as grpc.GenericRpcHandler does."""
        methods: dict[str, tuple[Callable[..., Any], Any, Any]] = {
            "Predict": (self._predict, PredictRequest, PredictResponse),
            "GetModelMetadata": (self._metadata, GetModelMetadataRequest, GetModelMetadataResponse),
            "GetModelStatus": (self._status, GetModelStatusRequest, GetModelStatusResponse),
        }
        answer, request, response = methods[details.method.rpartition("/")[2]]
        return grpc.unary_unary_rpc_method_handler(answer, request.FromString, response.SerializeToString)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def _predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        self._check(request.model_spec, context)
        if request.model_spec.name == READER_NAME:
            return answer_page(request)
        if request.model_spec.signature_name == CARD_SIGNATURE:
            return self._answer_card(request, context)
        predictions = self.model.classify(self._decode(request, context))
        response = PredictResponse(model_spec=self._version_spec())
        encode(np.array([each.probabilities for each in predictions]), response.outputs[OUTPUT])
        if predictions[0].is_digit is not None:
            encode(np.array([each.is_digit for each in predictions]), response.outputs[IS_DIGIT_OUTPUT])
        return response

    def _answer_card(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        if self.card is None:
            message = f'Serving signature key "{CARD_SIGNATURE}" not found.'
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)
        (batch_size,) = (dim.size for dim in request.inputs[CARD_INPUT].tensor_shape.dim)
        response = PredictResponse(model_spec=self._version_spec())
        tensor = response.outputs[CARD_OUTPUT]
        tensor.dtype = DT_STRING
        tensor.tensor_shape.dim.add(size=batch_size)
        tensor.string_val.extend([self.card] * batch_size)
        return response

    def _decode(self, request: PredictRequest, context: grpc.ServicerContext) -> NDArray[Any]:
        is_images = request.model_spec.signature_name == "images"
        tensor = request.inputs["images" if is_images else "pixels"]
        count, *shape = (dim.size for dim in tensor.tensor_shape.dim)
        expected = self._task.shape if is_images else self._task.instance_shape
        if tuple(shape) != expected:
            message = f"input must have shape [n, {expected}], not [n, {shape}]"
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, message)
        values = np.frombuffer(tensor.tensor_content, np.uint8 if is_images else np.float32)
        return values.reshape(count, *shape)

    def _metadata(
        self, request: GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> GetModelMetadataResponse:
        self._check(request.model_spec, context)
        return GetModelMetadataResponse(model_spec=self._version_spec())

    def _status(
        self, request: GetModelStatusRequest, context: grpc.ServicerContext
    ) -> GetModelStatusResponse:
        self._check(request.model_spec, context)
        status = ModelVersionStatus(version=self._version, state=ModelVersionStatus.State.Value("AVAILABLE"))
        return GetModelStatusResponse(model_version_status=[status])

    def _check(self, spec: ModelSpec, context: grpc.ServicerContext) -> None:
        if spec.signature_name == CARD_SIGNATURE:
            self.card_calls += 1
        else:
            self.calls += 1
        metadata = context.invocation_metadata()
        self.request_ids += [str(value) for key, value in metadata if key == "x-request-id"]
        time.sleep(self.delay)
        if self.failures:
            _abort(context, self.failures.pop(0), self.failure_details)
        if spec.name == READER_NAME and self.has_reader:
            return
        if spec.name != self._name or (spec.HasField("version") and spec.version.value != self._version):
            _abort(context, grpc.StatusCode.NOT_FOUND, "Servable not found")
        if spec.version_label not in ("", STABLE):
            message = f"Unrecognized servable version label: {spec.version_label}"
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, message)

    def _version_spec(self) -> ModelSpec:
        spec = ModelSpec(name=self._name)
        spec.version.value = self._version
        return spec


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError
