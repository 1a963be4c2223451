"""Model server in this process: TensorFlow Serving's gRPC methods over a linear model in NumPy."""

import json
import time
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.models_config import STABLE
from digit_core.artifact.task_card import DIGITS, READER_NAME, TaskCard
from digit_core.tfserving import protos
from digit_core.tfserving.codec import CARD_INPUT, CARD_SIGNATURE, IS_DIGIT_OUTPUT, OUTPUT
from tests.core.component_reader import answer_page
from tests.core.grpc_model_server import (
    GrpcModelServer,
    abort,
    abort_without_label,
    abort_without_signature,
    card_response,
    outputs_response,
    request_input,
)
from tests.core.linear_model import LinearModel


def dark_and_light(card: TaskCard) -> NDArray[np.uint8]:
    """Return a picture of each class of a model of two brightnesses: uint8 [2, *shape]."""
    return np.stack([np.full(card.shape, level, np.uint8) for level in (0, 255)])


class LinearModelServer(GrpcModelServer):
    """gRPC server of version 1 of a LinearModel.

    Without `task` the model is "digits", which has no task card; with it, the model has the card's name, and
    gives `card`, the card's JSON. A reader is beside it while `has_reader` is set. `delay` in seconds
    precedes every answer; `failures` are status codes for the next calls, one each, with `failure_details`.
    `card_calls` counts the calls for the task card, `calls` all others; `request_ids` has those that calls
    sent.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.uint8], **model: Any) -> None:
        """Serve version 1, of which `publish` has the arguments."""
        self.delay = 0.0
        self.has_reader = True
        self.failures: list[grpc.StatusCode] = []
        self.failure_details = "injected"
        self.calls = self.card_calls = 0
        self.request_ids: list[str] = []
        self._version = 0
        self.publish(images, labels, **model)
        self._name = self._task.name
        super().__init__()

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
        self.card: bytes | None = json.dumps(task.to_document()).encode() if task else None
        self.model = LinearModel(images, labels, with_is_digit=with_is_digit, task=self._task)
        self._version += 1

    def predict(
        self, request: protos.PredictRequest, context: grpc.ServicerContext
    ) -> protos.PredictResponse:
        self._check(request.model_spec, context)
        if request.model_spec.name == READER_NAME:
            return answer_page(request)
        if request.model_spec.signature_name == CARD_SIGNATURE:
            if self.card is None:
                abort_without_signature(request.model_spec, context)
            (count,) = (dim.size for dim in request.inputs[CARD_INPUT].tensor_shape.dim)
            return card_response(self.card, self._version, count)
        batch, task = request_input(request), self._task
        expected = task.shape if batch.dtype == np.uint8 else task.instance_shape
        if batch.shape[1:] != expected:
            message = f"input must have shape [n, {expected}], not {batch.shape}"
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, message)
        predictions = self.model.classify(batch)
        outputs = {OUTPUT: np.array([each.probabilities for each in predictions])}
        if predictions[0].is_digit is not None:
            outputs[IS_DIGIT_OUTPUT] = np.array([each.is_digit for each in predictions])
        return outputs_response(outputs, self._version)

    def model_metadata(
        self, request: protos.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> protos.GetModelMetadataResponse:
        self._check(request.model_spec, context)
        response = protos.GetModelMetadataResponse()
        response.model_spec.version.value = self._version
        return response

    def model_status(
        self, request: protos.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> protos.GetModelStatusResponse:
        self._check(request.model_spec, context)
        status = protos.ModelVersionStatus(
            version=self._version, state=protos.ModelVersionStatus.State.Value("AVAILABLE")
        )
        return protos.GetModelStatusResponse(model_version_status=[status])

    def _check(self, spec: protos.ModelSpec, context: grpc.ServicerContext) -> None:
        if spec.signature_name == CARD_SIGNATURE:
            self.card_calls += 1
        else:
            self.calls += 1
        metadata = context.invocation_metadata()
        self.request_ids += [str(value) for key, value in metadata if key == "x-request-id"]
        time.sleep(self.delay)
        if self.failures:
            abort(context, self.failures.pop(0), self.failure_details)
        if spec.name == READER_NAME and self.has_reader:
            return
        if spec.name != self._name or (spec.HasField("version") and spec.version.value != self._version):
            abort(context, grpc.StatusCode.NOT_FOUND, "Servable not found")
        if spec.version_label not in ("", STABLE):
            abort_without_label(spec, context)
