"""Conversion between NumPy arrays and TensorProto."""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DataType

from digit_serving.model_server.errors import ServingError

Array = np.ndarray[Any, Any]

NARROW_TYPES = frozenset({DataType.DT_INT8, DataType.DT_INT16, DataType.DT_UINT8, DataType.DT_UINT16})
"""Integers of fewer bits than TensorProto has for a value: 32."""

# TensorProto's value field of each type; an array of any other type is always written as `tensor_content`.
_VALUE_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    **dict.fromkeys((tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16), "int_val"),
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def type_name(number: int) -> str:
    """Return TensorFlow's name of a DataType: `float`, `uint8`, `string`."""
    return str(DataType.Name(number)).removeprefix("DT_").lower()


def decode(name: str, proto: TensorProto) -> Array:
    """Return the array of the tensor `name`. Raises ServingError if the values don't fill the shape.

    Typed values of 8 and 16 bits are 32 bits wide in `proto`; the lowest count, so that 300 is 44 in a uint8.
    """
    if proto.int_val and proto.dtype in NARROW_TYPES:
        wide = TensorProto()
        wide.CopyFrom(proto)
        wide.dtype = DataType.DT_INT32
        return decode(name, wide).astype(tf.as_dtype(proto.dtype).as_numpy_dtype)
    try:
        return tf.make_ndarray(proto)  # type: ignore[no-any-return]
    except (OverflowError, TypeError, ValueError):
        raise ServingError(f"tensor parsing error: {name}") from None


def encode(array: Array, proto: TensorProto, as_content: bool) -> None:
    """Write the array into the empty `proto`: as `tensor_content` if `as_content`, else as typed values.

    Strings are always typed values: TensorProto has no other form for them.
    """
    dtype = tf.as_dtype(array.dtype)
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field = _VALUE_FIELDS.get(dtype)
    if field is None or (as_content and dtype != tf.string):
        proto.tensor_content = array.tobytes()
    else:
        getattr(proto, field).extend(array.ravel().tolist())
