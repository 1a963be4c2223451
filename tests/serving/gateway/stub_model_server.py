"""Stub of a model server in front of which tests run the gateway, and its models: handlers of predictions."""

import json
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import READER_NAME, CardInput, TaskCard
from digit_core.tfserving import codec
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

FASHION = TaskCard(
    "fashion",
    ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    CardInput((28, 28), (0.0, 1.0)),
)
"""Task of small grey pictures with ten names."""
SHAPES = TaskCard("shapes", ("circle", "cross", "square", "star"), CardInput((64, 48, 3), (-1.0, 1.0)))
"""Task of colour pictures of another shape, range and number of classes."""

Answer = Callable[[PredictRequest, grpc.ServicerContext], PredictResponse]
"""Predict handler of the stub."""


def predict_response(
    probabilities: NDArray[np.float32], version: int = 1, is_digit: NDArray[np.float32] | None = None
) -> PredictResponse:
    """Build a model server's response: probabilities float32 [n, 10], and optionally is_digit float32 [n]."""
    outputs = {codec.OUTPUT: probabilities}
    return outputs_response(
        outputs if is_digit is None else outputs | {codec.IS_DIGIT_OUTPUT: is_digit}, version
    )


def answer(digit: int, version: int = 1, is_digit: float | None = None) -> Answer:
    """Return a Predict handler that answers every image with this digit."""

    def predict(request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
        count = request.inputs["images"].tensor_shape.dim[0].size
        shares = None if is_digit is None else np.full(count, is_digit, np.float32)
        return predict_response(np.eye(10, dtype=np.float32)[[digit] * count], version, shares)

    return predict


predict_sevens = answer(7)


class TemplateModel:
    """Predict handler of a linear model of typical digits; it gives `is_digit`, and `version` answers.

    `sizes` and `specs` are the number of images and the model of each request.
    """

    def __init__(self, digits: Any, version: int = 1) -> None:
        typical = np.concatenate([digits.typical(digit, 5) for digit in range(10)])
        self._model = LinearModel(typical, np.repeat(np.arange(10, dtype=np.uint8), 5), with_is_digit=True)
        self.version = version
        self.sizes: list[int] = []
        self.specs: list[ModelSpec] = []

    def __call__(self, request: PredictRequest, _context: grpc.ServicerContext) -> PredictResponse:
        batch = request_input(request)
        self.sizes.append(len(batch))
        self.specs.append(request.model_spec)
        rows = [(*each.probabilities, each.is_digit) for each in self._model.classify(batch)]
        outputs, version = np.array(rows, np.float32), request.model_spec.version.value or self.version
        return predict_response(outputs[:, :-1], version, outputs[:, -1])


NETWORK = {"name": "perceptron", "accuracy": 0.9}
LAYERS = {
    "00_Conv2D": np.array([[[[4, 0], [0, -1]], [[0, 2], [0, 0]]]], np.float32),
    "01_Dense": np.array([[0.5, 1, 0]], np.float32),
}
"""Network and activations of all versions of TaskModels."""


class TaskModels:
    """Predict handler of models with task cards, by name and version in `tasks`; the newest one answers.

    Like TensorFlow Serving it refuses input of another shape. The mean of an image decides its class: black
    is the first one, white the last one. `inputs` are the inputs of the calls, `versions` what answered them.
    """

    def __init__(self, **tasks: dict[int, TaskCard]) -> None:
        self.tasks = tasks
        self.labels: dict[str, int] = {}
        """Version labels, the same for all models."""
        self.inputs: list[NDArray[Any]] = []
        self.versions: list[tuple[str, int]] = []

    def resolve(self, spec: ModelSpec, context: grpc.ServicerContext) -> int:
        """Return the version that answers; abort if there is none."""
        versions = self.tasks.get(spec.name, {})
        if spec.version_label and spec.version_label not in self.labels:
            abort_without_label(spec, context)
        version = self.labels.get(spec.version_label) or spec.version.value or max(versions, default=0)
        if version not in versions:
            abort(context, grpc.StatusCode.NOT_FOUND, f"Servable not found: {spec.name}")
        return version

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        spec = request.model_spec
        version = self.resolve(spec, context)
        task = self.tasks[spec.name][version]
        if spec.signature_name == codec.CARD_SIGNATURE:
            response = card_response(json.dumps(task.to_document()), version)
            response.outputs[codec.NETWORK_OUTPUT].string_val.append(json.dumps(NETWORK).encode())
            return response
        if spec.signature_name == codec.LAYERS_SIGNATURE:
            return outputs_response(LAYERS, version)
        batch = request_input(request)
        is_images = spec.signature_name == "images"
        if batch.shape[1:] != (task.shape if is_images else task.instance_shape):
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature")
        self.inputs.append(batch)
        self.versions.append((spec.name, version))
        low, high = (0, 255) if is_images else task.range
        shares = (batch.reshape(len(batch), -1).mean(axis=1) - low) / (high - low)
        classes = np.minimum(shares * len(task.labels), len(task.labels) - 1).astype(int)
        return predict_response(np.eye(len(task.labels), dtype=np.float32)[classes], version)


class StubModelServer(GrpcModelServer):
    """gRPC model server; a test sets the handler `answer` of predictions and reads what arrived.

    Its models have no task card, unless `answer` is a TaskModels. `answer_card`, if set, answers requests for
    a card.
    """

    def __init__(self) -> None:
        self.answer: Answer = predict_sevens
        self.answer_card: Answer | None = None
        self.metadata: dict[str, Any] = {}
        self.calls = 0
        """Predictions asked."""
        self.card_calls = 0
        """Task cards asked."""
        self.pages = 0
        """Pages on which the reader was asked to find digits."""
        self.reader_error: grpc.StatusCode | None = None
        """Status of the reader's calls that fail; NOT_FOUND if there is no reader."""
        self.state = ModelVersionStatus.AVAILABLE
        """State of all versions."""
        self.failed: list[int] = []
        """Further versions, which failed to load."""
        super().__init__()

    def predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        if request.model_spec.signature_name in (codec.CARD_SIGNATURE, codec.LAYERS_SIGNATURE):
            return self._describe(request, context)
        if request.model_spec.name == READER_NAME:
            self.pages += 1
            if self.reader_error:
                abort(context, self.reader_error, "Servable not found for request: Latest(reader)")
            return answer_page(request)
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
        return self.answer(request, context)

    def _describe(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        """Answer with the task card, or with the layers."""
        if request.model_spec.signature_name == codec.CARD_SIGNATURE:
            self.card_calls += 1
            if self.answer_card:
                return self.answer_card(request, context)
        if not isinstance(self.answer, TaskModels):
            abort_without_signature(request.model_spec, context)
        return self.answer(request, context)

    def model_metadata(
        self, request: GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> GetModelMetadataResponse:
        response = GetModelMetadataResponse()
        response.model_spec.version.value = 1
        if isinstance(self.answer, TaskModels):
            response.model_spec.version.value = self.answer.resolve(request.model_spec, context)
        return response

    def model_status(
        self, request: GetModelStatusRequest, context: grpc.ServicerContext
    ) -> GetModelStatusResponse:
        versions = [1]
        if isinstance(self.answer, TaskModels):
            versions = list(self.answer.tasks.get(request.model_spec.name, {}))
        if not versions:
            abort(context, grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        response = GetModelStatusResponse()
        for version in versions:
            response.model_version_status.add(version=version, state=self.state)
        for version in self.failed:
            status = response.model_version_status.add(version=version, state=ModelVersionStatus.END)
            status.status.error_message = "Data loss"
        return response
