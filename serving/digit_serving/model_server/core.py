"""The model server without its transports: each call of TensorFlow Serving's API answered, or refused."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grpc import StatusCode
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from digit_serving.model_server.batching import Batcher
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.model_server.manager import Manager
from digit_serving.model_server.metrics import Metrics
from digit_serving.model_server.servable import Servable, warm_up
from digit_serving.model_server.tensors import Array, decode, encode, type_name
from digit_serving.model_server.versions import State


class Core:
    """Every call may raise ServingError; a `deadline` is on the monotonic clock."""

    def __init__(self, options: Options, metrics: Metrics, batcher: Batcher | None) -> None:
        self._options = options
        self._metrics = metrics
        self._batcher = batcher
        self._manager = Manager(options, self._load)
        self.reload = self._manager.reload

    def predict(self, request: PredictRequest, deadline: float = float("inf")) -> PredictResponse:
        with self._manager.serving(_spec(request)) as servable:
            return self._predict(servable, request, deadline)

    def signature(self, spec: ModelSpec) -> SignatureDef:
        """The signature that a request in JSON is to be read by."""
        name = spec.signature_name or "serving_default"
        with self._manager.serving(spec) as servable:
            if name in servable.signatures:
                return servable.signatures[name]
        raise ServingError(f'Serving signature name: "{name}" not found in signature def')

    def metadata(self, request: Any) -> GetModelMetadataResponse:
        spec = _spec(request)
        if not request.metadata_field:
            raise ServingError("GetModelMetadataRequest must specify at least one metadata_field")
        if unknown := set(request.metadata_field) - {"signature_def"}:
            raise ServingError(f"Metadata field {unknown.pop()} is not supported")
        with self._manager.serving(spec) as servable:
            response = GetModelMetadataResponse(
                model_spec={"name": spec.name, "version": {"value": servable.version}}
            )
            response.metadata["signature_def"].Pack(SignatureDefMap(signature_def=servable.signatures))
        return response

    def status(self, request: Any) -> GetModelStatusResponse:
        response = GetModelStatusResponse()
        for version in self._manager.status(_spec(request)):
            entry = response.model_version_status.add(version=version.number, state=version.state, status={})
            if version.error is not None and version.state == State.END:
                entry.status.error_code = version.error.code.value[0]
                entry.status.error_message = version.error.message
        return response

    def _load(self, name: str, version: int, directory: Path) -> Servable:
        options, threads = self._options, self._options.tensorflow_session_parallelism
        config = ConfigProto(
            intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism or threads,
            inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism or threads,
        )
        with self._metrics.load(str(directory)):
            servable = Servable(version, directory, options.saved_model_tags.split(","), config)
        if options.enable_model_warmup:
            with self._metrics.warm_up(str(directory)):
                iterations = max(options.num_request_iterations_for_warmup, 1)
                warm_up(directory, lambda request: self._predict(servable, request, float("inf")), iterations)
        return servable

    def _predict(self, servable: Servable, request: PredictRequest, deadline: float) -> PredictResponse:
        name = request.model_spec.signature_name or "serving_default"
        if name not in servable.signatures:
            problem = f'Serving signature key "{name}" not found.'
            raise ServingError(problem, StatusCode.FAILED_PRECONDITION)
        signature = servable.signatures[name]
        feeds, aliases = _feeds(signature, request), _aliases(signature, request)
        _check(deadline)
        with self._metrics.runtime(request.model_spec.name):
            arrays = self._run(servable, feeds, tuple(signature.outputs[alias].name for alias in aliases))
        _check(deadline)
        response = PredictResponse()
        response.model_spec.name, response.model_spec.signature_name = request.model_spec.name, name
        response.model_spec.version.value = servable.version
        for alias, array in zip(aliases, arrays, strict=True):
            encode(array, response.outputs[alias], self._options.enable_serialization_as_tensor_content)
        return response

    def _run(self, servable: Servable, feeds: dict[str, Array], fetches: tuple[str, ...]) -> list[Array]:
        names, arrays = tuple(feeds), list(feeds.values())
        if self._batcher is None:
            return servable.run(names, fetches, arrays)
        key = (servable, names, fetches, *(array.shape[1:] for array in arrays))
        return self._batcher.run(key, lambda merged: servable.run(names, fetches, merged), arrays)


def _spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise ServingError("Missing ModelSpec")
    return request.model_spec


def _feeds(signature: SignatureDef, request: PredictRequest) -> dict[str, Array]:
    """The arrays by tensor name, in its order: so the runtime numbers its arguments."""
    given, wanted = set(request.inputs), set(signature.inputs)
    missing = wanted - given - set(signature.defaults)
    if missing or not given <= wanted:
        sizes = f"{len(given)}!={len(wanted)} len({_join(given)}) != len({_join(wanted)})"
        sets = f"Sent extra: {_join(given - wanted)}. Missing but required: {_join(missing)}."
        raise ServingError(f"input size does not match signature: {sizes}. {sets}")
    feeds: dict[str, Array] = {}
    for alias, info in sorted(signature.inputs.items(), key=lambda item: str(item[1].name)):
        proto = (request.inputs if alias in given else signature.defaults)[alias]
        if proto.dtype != info.dtype:
            expected, provided = type_name(info.dtype), type_name(proto.dtype)
            raise ServingError(f"Expects arg[{len(feeds)}] to be {expected} but {provided} is provided")
        try:
            feeds[info.name] = decode(proto)
        except (TypeError, ValueError):
            raise ServingError(f"tensor parsing error: {alias}") from None
    return feeds


def _aliases(signature: SignatureDef, request: PredictRequest) -> list[str]:
    aliases = list(request.output_filter)
    for alias in aliases:
        if alias not in signature.outputs:
            expected = f"Outputs expected to be in the set {_join(signature.outputs)}."
            raise ServingError(f"output tensor alias not found in signature: {alias} {expected}")
        if aliases.count(alias) > 1:
            raise ServingError(f"duplicate output tensor alias: {alias}")
    return aliases or sorted(signature.outputs)


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise ServingError("Timed out waiting for notification", StatusCode.DEADLINE_EXCEEDED)


def _join(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"
