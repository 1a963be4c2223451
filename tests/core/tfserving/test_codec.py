"""Conversion of arrays to TensorFlow Serving's messages and back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, CardInput, CardPreparation, TaskCard
from digit_core.errors import InvalidOutputError
from digit_core.results import Prediction
from digit_core.tfserving import codec
from digit_core.tfserving.codec import Batch, ModelRef
from digit_core.tfserving.protos import DT_FLOAT, DT_UINT8, PredictRequest, PredictResponse
from tests.core.grpc_model_server import card_response, outputs_response

UNIFORM = np.full((2, 10), 0.1, np.float32)
FLOWERS = TaskCard(
    "flowers", ("daisy", "rosé"), CardInput((180, 240, 3), (-1.0, 1.0)), CardPreparation(fit="pad")
)


@pytest.mark.parametrize(
    ("batch", "signature", "name", "dtype"),
    [
        (np.arange(3 * 784).reshape(3, 28, 28).astype(np.uint8), "images", "images", DT_UINT8),
        (np.random.default_rng(0).random((3, 784), dtype=np.float32), "serving_default", "pixels", DT_FLOAT),
    ],
)
def test_encode_keeps_batch_in_the_signature_of_its_dtype(
    batch: Batch, signature: str, name: str, dtype: int
) -> None:
    request = PredictRequest.FromString(codec.encode(batch, ModelRef("digits")).SerializeToString())
    tensor = request.inputs[name]
    assert (request.model_spec.signature_name, tensor.dtype) == (signature, dtype)
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    assert np.array_equal(np.frombuffer(tensor.tensor_content, batch.dtype).reshape(shape), batch)
    # A model without `is_digit` refuses a filter that names it.
    assert not request.output_filter


@pytest.mark.parametrize(
    ("model", "version", "label"),
    [
        (ModelRef("flowers"), 0, ""),
        (ModelRef("flowers", version=3), 3, ""),
        (ModelRef("flowers", version_label="stable"), 0, "stable"),
    ],
)
def test_encode_sets_model_spec(model: ModelRef, version: int, label: str) -> None:
    for request in (codec.encode(np.zeros((1, 28, 28), np.uint8), model), codec.encode_card_request(model)):
        spec = request.model_spec
        assert (spec.name, spec.version.value, spec.version_label) == ("flowers", version, label)


def response(
    probabilities: NDArray[np.float32], is_digit: NDArray[np.float32] | None = None, *, packed: bool = True
) -> PredictResponse:
    """Return a response with the tensors as packed bytes, or as lists of floats."""
    outputs = {"probabilities": probabilities} | ({} if is_digit is None else {"is_digit": is_digit})
    message = outputs_response(outputs, version=5)
    if not packed:
        tensor = message.outputs["probabilities"]
        tensor.tensor_content = b""
        tensor.float_val.extend(probabilities.ravel().tolist())
    return message


def decode(
    probabilities: NDArray[np.float32], task: TaskCard, is_digit: NDArray[np.float32] | None = None
) -> list[Prediction]:
    """Return the predictions in a response of valid rows."""
    answers = codec.decode(response(probabilities, is_digit), task)
    predictions = [each for each in answers if isinstance(each, Prediction)]
    assert len(predictions) == len(answers)
    return predictions


def test_decode_packed_and_listed_tensor_are_equal() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 3).astype(np.float32)
    listed = codec.decode(response(probabilities, packed=False), DIGITS)
    assert listed == decode(probabilities, DIGITS)
    assert [each.is_digit for each in decode(probabilities, DIGITS)] == [None] * 3


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (card_response("{}"), "no output 'probabilities'"),
        (response(np.full((2, 9), 1 / 9, np.float32)), r"expected probabilities float32 \[n, 10\]"),
        (response(np.full(10, 0.1, np.float32)), r"expected probabilities float32 \[n, 10\]"),
    ],
)
def test_decode_unusable_probabilities_raise_value_error(message: PredictResponse, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        codec.decode(message, DIGITS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.2, -0.1, 1.1])
def test_decode_row_without_probabilities_has_error_in_its_place(value: float) -> None:
    rows = np.concatenate((UNIFORM, [[value, *[0.1] * 9]], UNIFORM)).astype(np.float32)
    *before, invalid, last, _ = codec.decode(response(rows), DIGITS)
    assert isinstance(invalid, InvalidOutputError)
    assert (invalid.model_version, invalid.code) == (5, "invalid_output")
    assert before == [last] * 2 == codec.decode(response(UNIFORM), DIGITS)


def test_decode_multi_label_names_labels_at_or_above_their_thresholds() -> None:
    task = replace(FLOWERS, labels=("daisy", "rose", "tulip"), threshold=(0.5, 0.25, 1.0))
    rows = np.array([[0.5, 0.75, 0.5], [0, 0, 0], [0.25, 0.25, 1]], np.float32)
    predictions = decode(rows, task)
    assert [each.predicted_labels for each in predictions] == [("daisy", "rose"), (), ("rose", "tulip")]
    assert {each.label for each in predictions} == {None}
    assert [each.confidence for each in predictions] == [0.75, 0, 1]
    found = [type(each) for each in codec.decode(response(rows * 2), task)]
    assert found == [InvalidOutputError, Prediction, InvalidOutputError]


def test_decode_is_digit_sets_is_digit() -> None:
    for shape in ((2,), (2, 1)):
        is_digit = np.array([0.25, 1], np.float32).reshape(shape)
        predictions = decode(UNIFORM, DIGITS, is_digit)
        assert [prediction.is_digit for prediction in predictions] == [0.25, 1]


@pytest.mark.parametrize("is_digit", [[0.5], [0.5] * 3, [[0.5, 0.5]]], ids=str)
def test_decode_unusable_is_digit_raises_value_error(is_digit: list[float]) -> None:
    with pytest.raises(ValueError, match="is_digit"):
        codec.decode(response(UNIFORM, np.array(is_digit, np.float32)), DIGITS)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_decode_is_digit_out_of_range_has_error_in_its_place(bad: float) -> None:
    good, invalid = codec.decode(response(UNIFORM, np.array([0.5, bad], np.float32)), DIGITS)
    assert isinstance(good, Prediction)
    assert isinstance(invalid, InvalidOutputError)


def test_decode_tensor_of_other_type_or_size_raises_value_error() -> None:
    message = response(UNIFORM, packed=False)
    del message.outputs["probabilities"].float_val[-1]
    with pytest.raises(ValueError, match="reshape"):
        codec.decode(message, DIGITS)
    message.outputs["probabilities"].dtype = DT_UINT8
    with pytest.raises(ValueError, match="expected float32"):
        codec.decode(message, DIGITS)


@settings(max_examples=40)
@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(2, 30)), elements=st.floats(0, 8, width=32)
    )
)
def test_decode_returns_most_probable_labels(scores: np.ndarray) -> None:
    labels = tuple(f"label {number}" for number in range(scores.shape[1]))
    exponents = np.exp(scores)
    probabilities = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
    predictions = decode(probabilities, replace(FLOWERS, labels=labels))
    for prediction, row in zip(predictions, probabilities, strict=True):
        assert (prediction.label, prediction.labels) == (labels[row.argmax()], labels)
        assert prediction.confidence == max(prediction.probabilities) == float(row.max())
        assert prediction.probabilities == tuple(row.tolist())
        assert prediction.model_version == 5


def test_decode_card_of_a_newer_release_ignores_unknown_keys() -> None:
    document = DIGITS.to_document()
    newer = {**document, "input": document["input"] | {"depth": 8}, "news": True}
    assert codec.decode_card(card_response(json.dumps(newer))) == DIGITS


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (PredictResponse(), "no output 'card'"),
        (card_response("", count=0), "no output 'card'"),
        (card_response(b"{"), "Expecting property name"),
        (card_response(b"\xff"), "decode"),
        (card_response(b"[1]"), "not a JSON object"),
        (card_response(b"{}"), "the task card lacks 'name'"),
    ],
)
def test_decode_card_malformed_card_raises_value_error(message: PredictResponse, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        codec.decode_card(message)
