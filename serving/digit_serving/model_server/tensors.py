"""NumPy arrays and TensorFlow's tensors on the wire."""

from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DataType

from digit_serving.model_server.errors import ServingError

Array = np.ndarray[Any, Any]

# TensorProto's field for the values of each type, and the type that a value has there, where it is another.
_FIELDS: dict[Any, tuple[str, Any]] = {
    tf.float16: ("half_val", np.uint16),
    tf.bfloat16: ("half_val", np.uint16),
    tf.float32: ("float_val", None),
    tf.float64: ("double_val", None),
    tf.int8: ("int_val", None),
    tf.int16: ("int_val", None),
    tf.int32: ("int_val", None),
    tf.uint8: ("int_val", None),
    tf.uint16: ("int_val", None),
    tf.uint32: ("uint32_val", None),
    tf.uint64: ("uint64_val", None),
    tf.int64: ("int64_val", None),
    tf.bool: ("bool_val", None),
    tf.string: ("string_val", None),
    tf.complex64: ("scomplex_val", np.float32),
    tf.complex128: ("dcomplex_val", np.float64),
}


def type_name(number: int) -> str:
    """A DataType as TensorFlow's messages call it: `float`, `uint8`, `string`."""
    return str(DataType.Name(number)).removeprefix("DT_").lower()


def decode(name: str, proto: TensorProto) -> Array:
    try:
        if proto.tensor_content:
            shape = [dim.size for dim in proto.tensor_shape.dim]
            return np.frombuffer(proto.tensor_content, _numpy_type(proto.dtype)).reshape(shape)
        return tf.make_ndarray(proto)  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        raise ServingError(f"tensor parsing error: {name}") from None


def encode(array: Array, proto: TensorProto, as_content: bool) -> None:
    """Fills `proto`, with values other than strings in `tensor_content` only if `as_content`."""
    proto.dtype, field, stored_as = _encoding(array.dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if (as_content and array.dtype != object) or not field:
        proto.tensor_content = array.tobytes()
    else:
        values = array.ravel()
        getattr(proto, field).extend((values.view(stored_as) if stored_as else values).tolist())


@lru_cache
def _numpy_type(number: int) -> Any:
    return tf.as_dtype(number).as_numpy_dtype


@lru_cache
def _encoding(numpy_type: np.dtype[Any]) -> tuple[int, str, Any]:
    dtype = tf.as_dtype(numpy_type)
    return int(dtype.as_datatype_enum), *_FIELDS.get(dtype, ("", None))
