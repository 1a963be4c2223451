"""Codec between NumPy arrays and TensorFlow Serving's messages. Pure: no I/O."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import TaskCard
from digit_core.errors import InvalidOutputError
from digit_core.reading.peaks import CLASSES, Peaks
from digit_core.results import Answer, Prediction
from digit_core.tfserving.protos import (
    DT_FLOAT,
    DT_UINT8,
    ModelSpec,
    PredictRequest,
    PredictResponse,
    TensorProto,
)

OUTPUT, IS_DIGIT_OUTPUT = "probabilities", "is_digit"
IMAGES_SIGNATURE, IMAGES_INPUT = "images", "images"
PIXELS_SIGNATURE, PIXELS_INPUT = "serving_default", "pixels"
CARD_SIGNATURE, CARD_INPUT, CARD_OUTPUT = "card", "unused", "card"
"""Signature that returns the task card: uint8 [n] to string [n]. Its input is unused; TensorFlow Serving's
batching requires one."""

NETWORK_OUTPUT = "network"
"""Second output of `card`, string [n]: name and test accuracy of the network, as JSON."""
LAYERS_SIGNATURE = "layers"
"""Signature that takes what `images` takes, and gives the activations of each layer, float32 [n, ...]. The
names of its outputs begin with the layer's number, in two digits."""
WEIGHTS_SUFFIX = "_weights"
"""End of the name of a further output: weights float32 [n, h, w, units] of a layer that takes the pixels."""

PAGES_INPUT = "pages"
"""Input of the reader: grey pages, uint8 [n, h, w]."""
LINE_WEIGHTS_OUTPUT = "line_weights"
"""Output of the reader: weights of the certainty of a line, float32 [n, m], the same for each page."""

Batch = NDArray[np.uint8] | NDArray[np.float32]
"""Model input: uint8 [n, *shape], or float32 [n, *instance_shape] in the task card's range."""


LayerValues = tuple[str, NDArray[np.float32], NDArray[np.float32] | None]
"""Kind, activations [...] and weights [h, w, units] of a layer; None if it has none on the pixels."""
Network = dict[str, Any]
"""A version's network: its `name`, and its `accuracy` on the test set, or None."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Reference to a model: its name, and optionally either a version number or a version label."""

    name: str
    version: int | None = None
    version_label: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}, version {self.version}"
        return f"{self.name}, label {self.version_label!r}" if self.version_label is not None else self.name


def model_spec(model: ModelRef) -> ModelSpec:
    """Convert a model reference to its message."""
    spec = ModelSpec(name=model.name)
    if model.version is not None:
        spec.version.value = model.version
    if model.version_label is not None:
        spec.version_label = model.version_label
    return spec


def encode(batch: Batch, model: ModelRef) -> PredictRequest:
    """Convert a batch to a request to `model`. The batch's dtype selects the signature."""
    if batch.dtype == np.uint8:
        return encode_input(batch, IMAGES_INPUT, IMAGES_SIGNATURE, model)
    return encode_input(batch, PIXELS_INPUT, PIXELS_SIGNATURE, model)


def encode_input(values: Batch, name: str, signature: str, model: ModelRef) -> PredictRequest:
    """Convert an array to a request for a signature of `model` with one input."""
    # Send no output filter: TensorFlow Serving refuses one that names an output which the model lacks.
    request = PredictRequest(model_spec=model_spec(model))
    request.model_spec.signature_name = signature
    tensor = request.inputs[name]
    tensor.dtype = DT_UINT8 if values.dtype == np.uint8 else DT_FLOAT
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = values.tobytes()
    return request


def encode_card_request(model: ModelRef) -> PredictRequest:
    """Return the request for a model's task card: signature `card`, input `unused` uint8 [1]."""
    return encode_input(np.zeros(1, np.uint8), CARD_INPUT, CARD_SIGNATURE, model)


def encode_page(page: NDArray[np.uint8], model: ModelRef) -> PredictRequest:
    """Convert a grey page, uint8 [h, w], to a request to the reader `model`."""
    return encode_input(page[np.newaxis], PAGES_INPUT, PIXELS_SIGNATURE, model)


def decode_card(response: PredictResponse) -> TaskCard:
    """Return the task card in a response. Raise ValueError if there is none or it is invalid."""
    values = response.outputs[CARD_OUTPUT].string_val if CARD_OUTPUT in response.outputs else ()
    if not values:
        raise ValueError(f"the response has no output {CARD_OUTPUT!r}")
    document = json.loads(values[0])
    if not isinstance(document, dict):
        raise ValueError("the task card is not a JSON object")
    return TaskCard.from_document(document, ignores_unknown=True)


def decode_network(response: PredictResponse) -> Network | None:
    """Return name and test accuracy of the network in the response to a card request, or None."""
    values = response.outputs[NETWORK_OUTPUT].string_val if NETWORK_OUTPUT in response.outputs else ()
    return json.loads(values[0]) if values else None


def decode_layers(response: PredictResponse) -> list[LayerValues]:
    """Return kind, activations and weights of each layer in a response for one picture, in their order."""
    values = {name: _decode_tensor(response.outputs[name])[0] for name in sorted(response.outputs)}
    return [
        (name[3:], activations, values.get(name + WEIGHTS_SUFFIX))
        for name, activations in values.items()
        if not name.endswith(WEIGHTS_SUFFIX)
    ]


def decode_peaks(response: PredictResponse) -> Peaks:
    """Convert a reader's response for one page to its k peaks.

    Raise ValueError unless it has finite `scores` float32 [1, k], `classes` float32 [1, k, 11] and `boxes`
    float32 [1, k, 4]. `line_weights` float32 [1, m] are optional.
    """
    arrays = []
    for name, sizes in (("scores", ()), ("classes", (CLASSES,)), ("boxes", (4,))):
        if name not in response.outputs:
            raise ValueError(f"the response has no output {name!r}")
        values = _decode_tensor(response.outputs[name])
        if values.shape != (1, *values.shape[1:2], *sizes) or not np.isfinite(values).all():
            raise ValueError(f"expected {name} float32 {[1, 'k', *sizes]}, got shape {list(values.shape)}")
        arrays.append(values[0])
    if len({len(values) for values in arrays}) != 1:
        raise ValueError("the numbers of scores, classes and boxes differ in the response")
    scores, classes, boxes = arrays
    weights = response.outputs.get(LINE_WEIGHTS_OUTPUT)
    return Peaks(scores, classes, boxes, None if weights is None else _decode_tensor(weights)[0])


def version_of(response: PredictResponse) -> int:
    """Return the version of the model that answered."""
    return int(response.model_spec.version.value)


def decode(response: PredictResponse, task: TaskCard) -> list[Answer]:
    """Convert a response with probabilities float32 [n, k] to n predictions of the task's k classes.

    `is_digit` float32 [n] or [n, 1] is optional. An InvalidOutputError is in the place of a row that is not a
    probability distribution (of a multi-label task, a probability lies outside 0..1), or whose `is_digit`
    lies outside 0..1. Raise ValueError if the probabilities are missing, or a tensor has another type or
    shape.
    """
    labels = task.labels
    if OUTPUT not in response.outputs:
        raise ValueError(f"the response has no output {OUTPUT!r}")
    probabilities = _decode_tensor(response.outputs[OUTPUT])
    if probabilities.ndim != 2 or probabilities.shape[1] != len(labels):
        raise ValueError(
            f"expected probabilities float32 [n, {len(labels)}], got shape {list(probabilities.shape)}"
        )
    # NaN fails the comparisons. The sum omits refused values, because NumPy would warn about infinities.
    in_range = (probabilities >= 0) & (probabilities < 1.001)
    is_valid = in_range.all(axis=1)
    is_one_label = not task.threshold
    if is_one_label:
        is_valid &= np.abs(probabilities.sum(axis=1, where=in_range) - 1) < 1e-3
    is_digits = _decode_is_digit(response, len(probabilities))
    if is_digits is not None:
        is_valid &= (is_digits >= 0) & (is_digits <= 1)
    version = version_of(response)
    return [
        Prediction(
            index,
            row[index],
            tuple(row),
            labels,
            version,
            is_digit=is_digit,
            predicted_labels=None if is_one_label else _above(task, row),
        )
        if valid
        else _invalid_output(version)
        for index, row, is_digit, valid in zip(
            probabilities.argmax(axis=1).tolist(),
            probabilities.tolist(),
            [None] * len(probabilities) if is_digits is None else is_digits.tolist(),
            is_valid.tolist(),
            strict=True,
        )
    ]


def _invalid_output(version: int) -> InvalidOutputError:
    error = InvalidOutputError("the model's output for the image is not a probability distribution")
    error.model_version = version
    return error


def _above(task: TaskCard, row: Sequence[float]) -> tuple[str, ...]:
    """Return the labels of a multi-label task whose probabilities reach their thresholds."""
    answers = zip(task.labels, row, task.threshold, strict=True)
    return tuple(label for label, probability, threshold in answers if probability >= threshold)


def _decode_is_digit(response: PredictResponse, count: int) -> NDArray[np.float32] | None:
    if IS_DIGIT_OUTPUT not in response.outputs:
        return None
    values = _decode_tensor(response.outputs[IS_DIGIT_OUTPUT])
    if values.shape not in ((count,), (count, 1)):
        raise ValueError(f"expected is_digit float32 [{count}], got shape {list(values.shape)}")
    return values.ravel()


def _decode_tensor(tensor: TensorProto) -> NDArray[np.float32]:
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype != DT_FLOAT:
        raise ValueError(f"expected float32, got data type {tensor.dtype} of shape {shape}")
    # TensorFlow Serving sends packed bytes or a list of floats, depending on its flags.
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype="<f4").reshape(shape)
    return np.array(tensor.float_val, dtype=np.float32).reshape(shape)
