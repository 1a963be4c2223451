"""Codec between NumPy arrays and TensorFlow Serving's messages. Pure: no I/O."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from digit_client._types import Prediction
from digit_client.tfserving.protos import (
    DT_FLOAT,
    DT_UINT8,
    ModelSpec,
    PredictRequest,
    PredictResponse,
    TensorProto,
)

DIGITS = 10
OUTPUT = "probabilities"

Batch = NDArray[np.uint8] | NDArray[np.float32]
"""Model input: uint8 [n, 28, 28], light ink on dark, or float32 [n, 784] in 0..1."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Reference to a model: its name, and optionally either a version number or a version label."""

    name: str = "digits"
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise ValueError("name a version or a label, not both")

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}, version {self.version}"
        return f"{self.name}, label {self.label!r}" if self.label is not None else self.name


def model_spec(model: ModelRef) -> ModelSpec:
    """Convert a model reference to its message."""
    spec = ModelSpec(name=model.name)
    if model.version is not None:
        spec.version.value = model.version
    if model.label is not None:
        spec.version_label = model.label
    return spec


def encode(batch: Batch, model: ModelRef) -> PredictRequest:
    """Convert a batch to a request to `model`. The batch's dtype selects the signature."""
    request = PredictRequest(model_spec=model_spec(model), output_filter=[OUTPUT])
    is_images = batch.dtype == np.uint8
    request.model_spec.signature_name = "images" if is_images else "serving_default"
    tensor = request.inputs["images" if is_images else "pixels"]
    tensor.dtype = DT_UINT8 if is_images else DT_FLOAT
    for size in batch.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = batch.tobytes()
    return request


def decode(response: PredictResponse) -> list[Prediction]:
    """Convert a response with probabilities float32 [n, 10] to n predictions.

    Raise ValueError if the tensor is missing, has another type or shape, or a row is not a probability
    distribution.
    """
    if OUTPUT not in response.outputs:
        raise ValueError(f"the response has no output {OUTPUT!r}")
    probabilities = _decode_tensor(response.outputs[OUTPUT])
    # NaN fails the comparisons. They come before the sum, for which NumPy would warn about infinities.
    in_range = (probabilities >= 0) & (probabilities < 1.001)
    if not in_range.all() or not (np.abs(probabilities.sum(axis=1) - 1) < 1e-3).all():
        raise ValueError("the model's output is not a probability distribution")
    version = response.model_spec.version.value
    return [
        Prediction(digit, row[digit], tuple(row), version)
        for digit, row in zip(probabilities.argmax(axis=1).tolist(), probabilities.tolist(), strict=True)
    ]


def _decode_tensor(tensor: TensorProto) -> NDArray[np.float32]:
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype != DT_FLOAT or len(shape) != 2 or shape[1] != DIGITS:
        raise ValueError(f"expected float32 [n, 10], got data type {tensor.dtype} of shape {list(shape)}")
    # TensorFlow Serving sends packed bytes or a list of floats, depending on its flags.
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype="<f4").reshape(shape)
    return np.array(tensor.float_val, dtype=np.float32).reshape(shape)
