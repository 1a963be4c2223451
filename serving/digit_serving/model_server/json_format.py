"""The REST API's JSON: a predict request's tensors in, a response's tensors out."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
from tensorflow.python.framework import dtypes
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.tensors import Array, decode, encode, type_name

Inputs = Mapping[str, TensorInfo]
_TYPES = {dict: "Object", str: "String", int: "Number", float: "Number", type(None): "Null"}


def read(
    body: bytes, spec: ModelSpec, signature_of: Callable[[ModelSpec], SignatureDef]
) -> tuple[PredictRequest, bool]:
    """The request in `body`, where NaN and Infinity are numbers, and whether it is by row.

    Raises:
        ServingError: the body is not JSON, or not formatted as the signature's inputs.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        problem = f"Invalid value. at offset: {getattr(error, 'pos', 0)}" if body else "The document is empty"
        raise ServingError(f"JSON Parse error: {problem}") from None
    if not isinstance(document, dict):
        raise ServingError(f"JSON Value: {_text(document)} Is not object")
    signature_name, by_row = document.get("signature_name", ""), "instances" in document
    if not isinstance(signature_name, str):
        problem = "not formatted correctly. 'signature_name' key must be a string value."
        raise ServingError(f"JSON Value: {_text(document)} {problem}")
    request = PredictRequest(model_spec=spec)
    request.model_spec.signature_name = signature_name
    inputs = signature_of(request.model_spec).inputs
    if by_row == ("inputs" in document):
        problem = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        either = f"JSON Value: {_text(document)} {problem}"
        raise ServingError(either if by_row else "Missing 'inputs' or 'instances' key")
    arrays = _rows(document["instances"], inputs) if by_row else _columns(document["inputs"], inputs)
    for name, array in arrays.items():
        encode(array, request.inputs[name], as_content=True)
    return request, by_row


def _columns(value: Any, inputs: Inputs) -> dict[str, Array]:
    if not _is_object(value):
        if len(inputs) > 1:
            raise ServingError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
            )
        value = dict.fromkeys(inputs, value)
    for name in inputs:
        if name not in value:
            raise ServingError(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(value[name], info.dtype) for name, info in inputs.items()}


def _rows(rows: Any, inputs: Inputs) -> dict[str, Array]:
    if not isinstance(rows, list) or not rows:
        problem = (
            "No values in 'instances' array" if rows == [] else "Excepting 'instances' to be an list/array"
        )
        raise ServingError(f"JSON Value: {_text(rows)} {problem}")
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
                raise ServingError(
                    f"JSON object: {_text(row)} keys must be equal to: {','.join(sorted(inputs))}"
                )
            for name, column in columns.items():
                array = _array(row[name] if named else row, inputs[name].dtype)
                if column and array.shape != column[0].shape:
                    raise ServingError(f"Expecting tensor size: {column[0].size} but got: {array.size}")
                column.append(array)
        except ServingError as error:
            raise ServingError(
                f"Failed to process element: {index} of 'instances' list. Error: {error}"
            ) from None
    return {name: np.stack(column) for name, column in columns.items()}


def _array(value: Any, type_number: int) -> Array:
    dtype, shape, inner = dtypes.as_dtype(type_number), [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    return np.array(list(_scalars(value, shape, dtype)), dtype.as_numpy_dtype).reshape(shape)


def _scalars(value: Any, shape: list[int], dtype: dtypes.DType) -> Iterator[Any]:
    if isinstance(value, list):
        if not shape or len(value) != shape[0]:
            raise ServingError(f"Encountered list at unexpected size: {len(value)}")
        for item in value:
            yield from _scalars(item, shape[1:], dtype)
    elif shape:
        raise ServingError(f"JSON Value: {_text(value)} found at incorrect level in the JSON DOM.")
    else:
        yield _scalar(value, dtype)


def _scalar(value: Any, dtype: dtypes.DType) -> Any:
    kind, name = type(value), type_name(dtype.as_datatype_enum)
    if dtype == dtypes.string and kind is str:
        return value.encode()
    if dtype == dtypes.string and kind is dict and not _is_object(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError:
            raise ServingError("Unable to base64 decode") from None
    if dtype.is_floating and kind in (int, float):
        largest = dtype.max if kind is float else 2 ** (53 if dtype == dtypes.float64 else 24) - 1
        if np.isfinite(value) and abs(value) > largest:
            raise ServingError(f"Cannot convert JSON value: {value} to {name} without loss of precision.")
    elif not ((dtype.is_integer and kind is int) or (dtype.is_bool and kind is bool)):
        found = f"{_text(value)} Type: {_TYPES.get(kind, str(value))}"
        raise ServingError(f"JSON Value: {found} is not of expected type: {name}")
    return value


def _is_object(value: Any) -> bool:
    """A JSON object, other than the one that stands for bytes."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write(response: PredictResponse, by_row: bool) -> str:
    """The answer to a request by row or by column; ServingError if the outputs have no rows or not as many."""
    arrays = {name: decode(proto) for name, proto in response.outputs.items()}
    columns = {name: _values(name, array) for name, array in arrays.items()}
    for name, array in arrays.items() if by_row else ():
        if array.ndim == 0:
            raise ServingError(f"Tensor name: {name} has no shape information ")
        if len(array) != (size := len(next(iter(arrays.values())))):
            raise ServingError(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}"
            )
    if len(columns) == 1:
        return _text({"predictions" if by_row else "outputs": columns.popitem()[1]})
    rows = (
        [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if by_row
        else []
    )
    return _text({"predictions": rows} if by_row else {"outputs": columns})


def _values(name: str, array: Array) -> Any:
    """Nested lists; floats with six digits where these tell them apart, else with all that matter."""
    flat, values = array.ravel().tolist(), np.empty(array.size, object)
    if array.dtype.kind == "f":
        short = [float(f"{value:.6g}") for value in flat]
        precise = [float(f"{value:.{9 if array.itemsize < 8 else 17}g}") for value in flat]
        values[:] = np.where(np.array(short, array.dtype) == array.ravel(), short, precise)
    elif array.dtype.kind == "O" and name.endswith("_bytes"):
        values[:] = [{"b64": base64.b64encode(value).decode()} for value in flat]
    else:
        values[:] = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in flat]
    return values.reshape(array.shape).tolist()
