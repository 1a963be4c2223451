"""The REST API's JSON: a predict request's tensors in, a response's tensors out."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.tensors import Array, decode, encode, type_name

Inputs = Mapping[str, Any]  # TensorInfo by name
_TYPES = {dict: "Object", str: "String", int: "Number", float: "Number", type(None): "Null"}


def read(body: bytes, request: PredictRequest, inputs_of: Callable[[Any], Inputs]) -> bool:
    """Fills `request` from `body`, where NaN and Infinity are numbers; whether the tensors are by row.

    Raises:
        ServingError: the body is not JSON, or not formatted as the signature's inputs.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise ServingError(
            f"JSON Parse error: Invalid value. at offset: {getattr(error, 'pos', 0)}"
        ) from None
    if not isinstance(document, dict) or not isinstance(document.get("signature_name", ""), str):
        problem = (
            "'signature_name' key must be a string value." if isinstance(document, dict) else "Is not object"
        )
        raise ServingError(f"JSON Value: {_text(document)} {problem}")
    request.model_spec.signature_name = document.get("signature_name", "")
    inputs, by_row = inputs_of(request.model_spec), "instances" in document
    if by_row == ("inputs" in document):
        problem = f"JSON Value: {_text(document)} Not formatted correctly expecting only one of them"
        raise ServingError(problem if by_row else "Missing 'inputs' or 'instances' key")
    arrays = _rows(document["instances"], inputs) if by_row else _columns(document["inputs"], inputs)
    for name, array in arrays.items():
        encode(array, request.inputs[name], as_content=True)
    return by_row


def _columns(value: Any, inputs: Inputs) -> dict[str, Array]:
    if not _is_object(value) and len(inputs) > 1:
        raise ServingError("inputs is a plain value/list, but expecting an object as multiple input tensors")
    columns = value if _is_object(value) else dict.fromkeys(inputs, value)
    for name in inputs:
        if name not in columns:
            raise ServingError(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(columns[name], info.dtype) for name, info in inputs.items()}


def _rows(rows: Any, inputs: Inputs) -> dict[str, Array]:
    if not isinstance(rows, list) or not rows:
        raise ServingError(f"JSON Value: {_text(rows)} Excepting 'instances' to be an list/array with values")
    named = _is_object(rows[0])
    if len(inputs) > 1 and not named:
        raise ServingError(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
        )
    columns: dict[str, list[Array]] = {name: [] for name in inputs}
    for index, row in enumerate(rows):
        if _is_object(row) != named:
            expected = "object but got list" if named else "value/list but got object"
            raise ServingError(f"Expecting {expected} at item {index} of input list")
        try:
            if named and row.keys() != inputs.keys():
                raise ServingError(f"JSON object: keys must be equal to: {','.join(sorted(inputs))}")
            for name, column in columns.items():
                column.append(_array(row[name] if named else row, inputs[name].dtype))
                if column[-1].shape != column[0].shape:
                    raise ServingError(f"Expecting tensor size: {column[0].size} but got: {column[-1].size}")
        except ServingError as error:
            raise ServingError(
                f"Failed to process element: {index} of 'instances' list. Error: {error}"
            ) from None
    return {name: np.stack(column) for name, column in columns.items()}


def _array(value: Any, type_number: int) -> Array:
    dtype, name, nested = tf.as_dtype(type_number), type_name(type_number), np.array(value, object)
    flat = [_bytes(leaf) for leaf in nested.flat] if name == "string" else nested.ravel().tolist()
    kinds = (int, float) if dtype.is_floating else ({"string": bytes, "bool": bool}.get(name, int),)
    whole, largest = 2 ** (53 if name == "double" else 24) - 1, dtype.max if dtype.is_floating else 0
    for leaf in flat:
        if isinstance(leaf, list):
            raise ServingError("Encountered list at unexpected level or size")
        if type(leaf) not in kinds:
            found = f"{_text(leaf)} Type: {_TYPES.get(type(leaf), str(leaf))}"
            raise ServingError(f"JSON Value: {found} is not of expected type: {name}")
        if largest and float("inf") != abs(leaf) > (whole if type(leaf) is int else largest):
            raise ServingError(f"Cannot convert JSON value: {leaf} to {name} without loss of precision.")
    return np.array(flat, dtype.as_numpy_dtype).reshape(nested.shape)


def _bytes(leaf: Any) -> Any:
    if not isinstance(leaf, dict) or _is_object(leaf):
        return leaf.encode() if isinstance(leaf, str) else leaf
    try:
        return base64.b64decode(leaf["b64"], validate=True)
    except ValueError:
        raise ServingError("Unable to base64 decode") from None


def _is_object(value: Any) -> bool:
    """A JSON object, other than the one that stands for bytes."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write(response: PredictResponse, by_row: bool) -> str:
    """The answer to a request by row or by column; ServingError if the outputs are not all as many rows."""
    arrays = {name: decode(name, proto) for name, proto in response.outputs.items()}
    columns = {name: _values(name, array) for name, array in arrays.items()}
    for name, array in arrays.items() if by_row else ():
        if array.ndim == 0:
            raise ServingError(f"Tensor name: {name} has no shape information ")
        if len(array) != (size := len(next(iter(columns.values())))):
            raise ServingError(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}"
            )
    answer = next(iter(columns.values())) if len(columns) == 1 else columns
    if by_row and len(columns) > 1:
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return _text({"predictions" if by_row else "outputs": answer})


def _values(name: str, array: Array) -> Any:
    """Nested lists; floats with six digits where these tell them apart, else with all that matter."""
    flat: Any = array.ravel().tolist()
    values = np.empty(array.size, object)
    if array.dtype.kind == "f":
        digits = 9 if array.itemsize < 8 else 17
        short, long = ([float(f"{value:.{n}g}") for value in flat] for n in (6, digits))
        flat = np.where(np.array(short, array.dtype) == array.ravel(), short, long)
    elif array.dtype.kind == "O" and name.endswith("_bytes"):
        flat = [{"b64": base64.b64encode(value).decode()} for value in flat]
    elif array.dtype.kind == "O":
        flat = [value.decode(errors="replace") for value in flat]
    values[:] = flat
    return values.reshape(array.shape).tolist()
