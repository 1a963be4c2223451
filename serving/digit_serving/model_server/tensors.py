"""NumPy arrays and TensorFlow's tensors on the wire."""

from typing import Any

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_STRING, DataType
from tensorflow.python.framework import dtypes, tensor_util

Array = np.ndarray[Any, Any]
# Fields of TensorProto that are not named for the type of their values.
_FIELDS = {"float32": "float_val", "float64": "double_val", "float16": "half_val", "bfloat16": "half_val"}
_FIELDS |= {"complex64": "scomplex_val", "complex128": "dcomplex_val"}
_FIELDS |= dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "int_val")
_PARTS = {"half_val": np.uint16, "scomplex_val": np.float32, "dcomplex_val": np.float64}


def type_name(number: int) -> str:
    """A DataType as TensorFlow's messages call it: `float`, `uint8`, `string`."""
    return str(DataType.Name(number)).removeprefix("DT_").lower()


def decode(proto: TensorProto) -> Array:
    """Raises ValueError or TypeError for a proto that is not a tensor."""
    if not proto.tensor_content or proto.dtype == DT_STRING:
        return tensor_util.MakeNdarray(proto)  # type: ignore[no-any-return]
    values = np.frombuffer(proto.tensor_content, dtypes.as_dtype(proto.dtype).as_numpy_dtype)
    return values.reshape([dim.size for dim in proto.tensor_shape.dim])


def encode(array: Array, proto: TensorProto, as_content: bool) -> None:
    """Fills `proto`, with values other than strings in `tensor_content` only if `as_content`."""
    dtype = dtypes.as_dtype(array.dtype)
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field = _FIELDS.get(dtype.name, f"{dtype.name}_val")
    if as_content and field != "string_val":
        proto.tensor_content = array.tobytes()
    else:
        getattr(proto, field).extend(array.ravel().view(_PARTS.get(field, array.dtype)).tolist())
