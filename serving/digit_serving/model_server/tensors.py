"""NumPy arrays and TensorFlow's tensors on the wire."""

from functools import lru_cache
from typing import Any

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.python.framework import dtypes, tensor_util

from digit_serving.model_server.errors import ServingError

Array = np.ndarray[Any, Any]


def type_name(number: int) -> str:
    """A DataType as TensorFlow's messages call it: `float`, `uint8`, `string`."""
    return str(DataType.Name(number)).removeprefix("DT_").lower()


def decode(name: str, proto: TensorProto) -> Array:
    try:
        if proto.tensor_content:
            shape = [dim.size for dim in proto.tensor_shape.dim]
            return np.frombuffer(proto.tensor_content, _numpy_type(proto.dtype)).reshape(shape)
        return tensor_util.MakeNdarray(proto)  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        raise ServingError(f"tensor parsing error: {name}") from None


def encode(array: Array, proto: TensorProto, as_content: bool) -> None:
    """Fills `proto`, with values other than strings in `tensor_content` only if `as_content`."""
    proto.dtype = _number(array.dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if as_content and array.dtype != object:
        proto.tensor_content = array.tobytes()
    elif array.dtype == np.float32:  # which nearly all outputs are; value by value it takes ten times as long
        proto.float_val.extend(array.ravel().tolist())
    else:
        tensor_util.GetNumpyAppendFn(array.dtype)(proto, array.ravel())


@lru_cache
def _numpy_type(number: int) -> Any:
    return dtypes.as_dtype(number).as_numpy_dtype


@lru_cache
def _number(numpy_type: np.dtype[Any]) -> int:
    return int(dtypes.as_dtype(numpy_type).as_datatype_enum)
