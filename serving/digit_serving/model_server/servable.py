"""Signatures: they turn a request into feeds and fetches, with lookups made once, when the model loads."""

import gc
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from grpc import StatusCode
from tensorflow.core.protobuf.config_pb2 import CallableOptions
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.model_server.tensors import Array, decode, type_name


class Signature:
    """The methods raise ServingError where the request doesn't fit it."""

    def __init__(self, definition: SignatureDef) -> None:
        self._definition = definition
        inputs = [(str(info.name), alias, info.dtype) for alias, info in definition.inputs.items()]
        self._inputs = sorted(inputs)
        self._outputs = {alias: definition.outputs[alias].name for alias in sorted(definition.outputs)}

    def feeds(self, request: PredictRequest) -> dict[str, Array]:
        """The arrays by tensor name, in the order by which the runtime numbers arguments in its messages."""
        given, feeds = request.inputs, dict[str, Array]()
        if len(given) != len(self._inputs) or any(alias not in given for _, alias, _ in self._inputs):
            self._check(request)
        for tensor, alias, dtype in self._inputs:
            proto = (given if alias in given else self._definition.defaults)[alias]
            if proto.dtype != dtype:
                types = f"{type_name(dtype)} but {type_name(proto.dtype)}"
                raise ServingError(f"Expects arg[{len(feeds)}] to be {types} is provided")
            feeds[tensor] = decode(alias, proto)
        return feeds

    def fetches(self, request: PredictRequest) -> dict[str, str]:
        """The requested tensors' names by the outputs' names."""
        aliases = list(request.output_filter)
        for alias in aliases:
            if alias not in self._outputs:
                raise ServingError(f"output tensor alias not found in signature: {alias}")
            if aliases.count(alias) > 1:
                raise ServingError(f"duplicate output tensor alias: {alias}")
        return {alias: self._outputs[alias] for alias in aliases} if aliases else self._outputs

    def _check(self, request: PredictRequest) -> None:
        wanted, defaults = self._definition.inputs.keys(), self._definition.defaults.keys()
        extra, missing = (
            sorted(request.inputs.keys() - wanted),
            sorted(wanted - request.inputs.keys() - defaults),
        )
        if extra or missing:
            sets = f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
            sizes = f"{len(request.inputs)}!={len(wanted)}"
            raise ServingError(f"input size does not match signature: {sizes}. {sets}")


_MAX_WARMUP_RECORDS = 1000
# The calling thread runs the operations: a small model's take less time than the handover to a pool would.
_IN_CALLING_THREAD = tf.compat.v1.RunOptions(inter_op_thread_pool=-1)


class Servable:
    """Loaded when constructed; ServingError where the directory holds no SavedModel with these tags."""

    def __init__(self, directory: Path, version: int, options: Options) -> None:
        self.version = version
        both = options.tensorflow_session_parallelism
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism or both,
            inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism or both,
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        self._callable = lru_cache(maxsize=64)(self._make_callable)
        self.signatures = _load(self._session, directory, options.saved_model_tags.split(",")).signature_def
        self.calls = {name: Signature(definition) for name, definition in self.signatures.items()}

    def run(self, feeds: tuple[str, ...], fetches: tuple[str, ...], arrays: list[Array]) -> list[Array]:
        """The tensors named `fetches`, for `arrays` as the tensors named `feeds`; safe in threads."""
        try:
            return self._callable(feeds, fetches)(*arrays)  # type: ignore[no-any-return]
        except tf.errors.OpError as error:
            raise ServingError(error.message, error.error_code) from None

    def close(self) -> None:
        self._callable.cache_clear()
        self._session.close()
        # Graphs contain reference cycles, which only the garbage collector frees.
        del self._session
        gc.collect()

    def _make_callable(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Any:
        # Private API, bounded by pyproject.toml's exact minor version of TensorFlow. Session.run and
        # Session.make_callable, its public counterparts, refuse shapes that differ from the graph's static
        # ones. TensorFlow Serving leaves them to the operations, and its own integration test needs that.
        options = CallableOptions(feed=feeds, fetch=fetches, run_options=_IN_CALLING_THREAD)
        return self._session._make_callable_from_options(options)


def _load(session: Any, directory: Path, tags: list[str]) -> Any:
    try:
        return tf.compat.v1.saved_model.load(session, tags, str(directory))
    except tf.errors.OpError as error:
        raise ServingError(error.message, error.error_code) from None
    except OSError:
        if any(directory.glob("saved_model.pb*")):
            raise ServingError("Read less bytes than requested", StatusCode.OUT_OF_RANGE) from None
        problem = f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}"
    except RuntimeError:
        problem = f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}"
    except Exception as error:  # the graph's importer raises many types
        raise ServingError(str(error)) from None
    raise ServingError(problem, StatusCode.NOT_FOUND)


def warm_up(directory: Path, predict: Callable[[PredictRequest], object], iterations: int) -> None:
    """Runs every record, if there are any; ServingError for a bad one, one too many, or a failing request."""
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    records = tf.compat.v1.io.tf_record_iterator(str(path)) if path.exists() else ()
    try:
        for count, record in enumerate(records, 1):
            for _ in range(iterations):
                predict(PredictionLog.FromString(record).predict_log.request)
            if count > _MAX_WARMUP_RECORDS:
                limit = f"the maximum ({_MAX_WARMUP_RECORDS})"
                raise ServingError(f"Number of warmup records exceeds {limit} at {path}")
    except DecodeError:
        raise ServingError(f"Failed to parse warmup record: {record!r} from {path}") from None
    except tf.errors.DataLossError as error:
        problem = f"{error.message}. Please verify your warmup data is in TFRecord format."
        raise ServingError(problem, StatusCode.DATA_LOSS) from None
