"""NumPy arrays and TensorFlow's tensors on the wire."""

from typing import Any

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_STRING, DataType
from tensorflow.python.framework import dtypes, tensor_util

Array = np.ndarray[Any, Any]

# The field that holds the values of a type, and the type of its parts where that is another.
_FIELDS: dict[str, tuple[str, Any]] = {
    **{f"{kind}{bits}": ("int_val", None) for kind in ("int", "uint") for bits in (8, 16, 32)},
    **{name: (f"{name}_val", None) for name in ("int64", "uint32", "uint64", "bool", "string")},
    **{"float32": ("float_val", None), "float64": ("double_val", None)},
    **{"float16": ("half_val", np.uint16), "bfloat16": ("half_val", np.uint16)},
    **{"complex64": ("scomplex_val", np.float32), "complex128": ("dcomplex_val", np.float64)},
}


def type_name(number: int) -> str:
    """A DataType as TensorFlow's messages call it: `float`, `uint8`, `string`."""
    return str(DataType.Name(number)).removeprefix("DT_").lower()


def decode(proto: TensorProto) -> Array:
    """Raises ValueError or TypeError for a proto that is not a tensor."""
    if not proto.tensor_content or proto.dtype == DT_STRING:
        return tensor_util.MakeNdarray(proto)  # type: ignore[no-any-return]
    values = np.frombuffer(proto.tensor_content, dtypes.as_dtype(proto.dtype).as_numpy_dtype)
    return values.reshape([dim.size for dim in proto.tensor_shape.dim])


def encode(array: Array, proto: TensorProto, as_content: bool = False) -> None:
    """Fills `proto` with the values in the field of their type, unless `as_content`: strings always are there."""
    dtype = dtypes.as_dtype(array.dtype)
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field, part = _FIELDS[dtype.name]
    if as_content and dtype.name != "string":
        proto.tensor_content = array.tobytes()
    else:
        getattr(proto, field).extend((array.view(part) if part else array).ravel().tolist())
