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

_NEVER = float("inf")


class Core:
    """Every call may raise ServingError; a `deadline` is on the monotonic clock."""

    def __init__(self, options: Options, batcher: Batcher | None) -> None:
        self._options = options
        self._batcher = batcher
        self.metrics = Metrics()
        self._manager = Manager(options, self._load)
        self.reload = self._manager.reload

    def predict(self, request: PredictRequest, deadline: float) -> PredictResponse:
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
        spec, response = _spec(request), GetModelMetadataResponse()
        if set(request.metadata_field) != {"signature_def"}:
            unknown = ", ".join(set(request.metadata_field) - {"signature_def"})
            problem = "GetModelMetadataRequest must specify at least one metadata_field"
            raise ServingError(f"Metadata field {unknown} is not supported" if unknown else problem)
        with self._manager.serving(spec) as servable:
            response.model_spec.name, response.model_spec.version.value = spec.name, servable.version
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

    def _load(self, directory: Path, version: int) -> Servable:
        options, threads = self._options, self._options.tensorflow_session_parallelism
        config = ConfigProto(
            intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism or threads,
            inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism or threads,
        )
        with self.metrics.counting("load_attempt_count", str(directory)):
            servable = Servable(directory, version, options.saved_model_tags.split(","), config)
        if options.enable_model_warmup:
            with self.metrics.timing("model_warmup_latency", str(directory), "OK"):
                iterations = max(options.num_request_iterations_for_warmup, 1)
                warm_up(directory, lambda request: self._predict(servable, request, _NEVER), iterations)
        return servable

    def _predict(self, servable: Servable, request: PredictRequest, deadline: float) -> PredictResponse:
        name = request.model_spec.signature_name or "serving_default"
        if name not in servable.signatures:
            problem = f'Serving signature key "{name}" not found.'
            raise ServingError(problem, StatusCode.FAILED_PRECONDITION)
        signature, response = servable.signatures[name], PredictResponse()
        feeds, aliases = _feeds(signature, request), _aliases(signature, request)
        _check(deadline)
        with self.metrics.timing("runtime_latency", request.model_spec.name, "Predict", "TF1"):
            arrays = self._run(servable, feeds, tuple(signature.outputs[alias].name for alias in aliases))
        _check(deadline)
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
    extra, missing = given - wanted, wanted - given - set(signature.defaults)
    if extra or missing:
        sets = f"Sent extra: {_join(extra)}. Missing but required: {_join(missing)}."
        raise ServingError(f"input size does not match signature: {len(given)}!={len(wanted)}. {sets}")
    feeds: dict[str, Array] = {}
    for alias, info in sorted(signature.inputs.items(), key=lambda item: str(item[1].name)):
        proto = (request.inputs if alias in given else signature.defaults)[alias]
        if proto.dtype != info.dtype:
            types = f"{type_name(info.dtype)} but {type_name(proto.dtype)}"
            raise ServingError(f"Expects arg[{len(feeds)}] to be {types} is provided")
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
