"""Servable: a loaded SavedModel, its signatures, its warm-up, and the conversion of its tensors."""

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.config_pb2 import CallableOptions
from tensorflow.core.protobuf.error_codes_pb2 import Code
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from digit_serving.errors import ServingError
from digit_serving.model_server.budget import return_memory
from digit_serving.model_server.flags import Options

Array = np.ndarray[Any, Any]

# Run operations in the calling thread: in a small model they take less time than a handover to a pool.
_RUN_OPTIONS = tf.compat.v1.RunOptions(inter_op_thread_pool=-1)
_MAX_WARMUP_REQUESTS = 1000
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


class Signature:
    """Index of a SignatureDef, built once when the model loads."""

    def __init__(self, definition: SignatureDef) -> None:
        self._inputs = {alias: (str(info.name), info.dtype) for alias, info in definition.inputs.items()}
        self._outputs = {alias: definition.outputs[alias].name for alias in sorted(definition.outputs)}
        self._defaults = {alias: decode(alias, proto) for alias, proto in definition.defaults.items()}

    def feeds(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the arrays by tensor name. Raises ServingError if they don't fit the signature."""
        arrays = {**self._defaults, **inputs}
        missing = sorted(self._inputs.keys() - arrays.keys())
        unexpected = sorted(inputs.keys() - self._inputs.keys())
        if missing or unexpected:
            raise ServingError(
                f"inputs do not match the signature; missing: {missing}, unexpected: {unexpected}"
            )
        for alias, (_, dtype) in self._inputs.items():
            given = tf.as_dtype(arrays[alias].dtype).as_datatype_enum
            if given != dtype:
                raise ServingError(f"input {alias} must be {type_name(dtype)}, not {type_name(given)}")
        return {tensor: arrays[alias] for alias, (tensor, _) in self._inputs.items()}

    def fetches(self, aliases: Sequence[str]) -> dict[str, str]:
        """Return the tensor name of each output (default: all). Raises ServingError for an unknown output."""
        for alias in aliases:
            if alias not in self._outputs:
                raise ServingError(f"output tensor alias not found in signature: {alias}")
            if list(aliases).count(alias) > 1:
                raise ServingError(f"duplicate output tensor alias: {alias}")
        return {alias: self._outputs[alias] for alias in aliases or self._outputs}


class Servable:
    """A version in memory, loaded by the constructor.

    Raises ServingError if the directory holds no SavedModel with the tags of the flags.
    """

    def __init__(self, directory: Path, version: int, options: Options) -> None:
        self.version = version
        threads = options.tensorflow_session_parallelism
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism or threads,
            inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism or threads,
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        self._callable = lru_cache(maxsize=64)(self._make_callable)
        tags = options.saved_model_tags.split(",")
        try:
            graph = tf.compat.v1.saved_model.load(self._session, tags, str(directory))
        except tf.errors.OpError as error:
            raise ServingError(error.message, Code.Name(error.error_code)) from None
        except Exception as error:  # TensorFlow's graph importer raises many types
            raise ServingError(str(error)) from None
        self.signature_defs = graph.signature_def
        self.signatures = {name: Signature(definition) for name, definition in self.signature_defs.items()}

    def run(self, feeds: tuple[str, ...], fetches: tuple[str, ...], arrays: list[Array]) -> list[Array]:
        """Compute the tensors named `fetches` from `arrays`, the values of the tensors named `feeds`.

        Thread-safe. Raises ServingError if an operation fails.
        """
        try:
            outputs = self._callable(feeds, fetches)(*arrays)
        except tf.errors.OpError as error:
            raise ServingError(error.message, Code.Name(error.error_code)) from None
        # TensorFlow returns a scalar string as bytes.
        return [np.array(output, object) if isinstance(output, bytes) else output for output in outputs]

    def close(self) -> None:
        """Cancel the calls that are running, and free the memory once they end."""
        self._callable.cache_clear()
        self._session.close()
        # Graphs contain reference cycles, which only the garbage collector frees.
        del self._session
        gc.collect()
        return_memory()

    def _make_callable(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Any:
        # Private API, bounded by pyproject.toml's exact minor version of TensorFlow. The public functions,
        # Session.run and Session.make_callable, refuse shapes that differ from the graph's static shapes.
        # TensorFlow Serving lets the operations check shapes, and its own integration test needs that.
        options = CallableOptions(feed=feeds, fetch=fetches, run_options=_RUN_OPTIONS)
        return self._session._make_callable_from_options(options)


def start_tensorflow() -> None:
    """Run the process's first session without standard error.

    TensorFlow logs two lines there in that session, whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            session.run(tf.constant(0))
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def warm_up(directory: Path, predict: Callable[[PredictRequest], object], iterations: int) -> None:
    """Send each Predict request of the version's warm-up file, if there is one, to `predict`.

    Raises ServingError if its records can't be read, or are more than 1,000.
    """
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    if not path.exists():
        return
    try:
        for count, record in enumerate(tf.compat.v1.io.tf_record_iterator(str(path))):
            if count == _MAX_WARMUP_REQUESTS:
                raise ServingError(f"{path} has more than {_MAX_WARMUP_REQUESTS} warm-up requests")
            log = PredictionLog.FromString(record)
            for _ in range(iterations if log.HasField("predict_log") else 0):
                predict(log.predict_log.request)
    except (tf.errors.OpError, DecodeError) as error:
        raise ServingError(f"The warm-up requests in {path} can't be read: {error}") from None


def type_name(number: int) -> str:
    """Return TensorFlow's name of a DataType: `float`, `uint8`, `string`."""
    return str(DataType.Name(number)).removeprefix("DT_").lower()


def decode(name: str, proto: TensorProto) -> Array:
    """Return the array of the tensor `name`. Raises ServingError if its shape or its type has no array."""
    shape = proto.tensor_shape
    if shape.unknown_rank or any(dim.size < 0 for dim in shape.dim):
        raise ServingError(f"tensor parsing error: {name}")
    try:
        return tf.make_ndarray(proto)  # type: ignore[no-any-return]
    # KeyError: NumPy lacks the type, for example that of a variant.
    except (KeyError, OverflowError, TypeError, ValueError):
        raise ServingError(f"tensor parsing error: {name}") from None


def encode(array: Array, proto: TensorProto, as_content: bool) -> None:
    """Write the array into the empty `proto`: as `tensor_content` if `as_content`, or as typed values.

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
