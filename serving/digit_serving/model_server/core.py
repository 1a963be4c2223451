"""Server core: TensorFlow Serving's API without a transport."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from digit_core.artifact.versions import ArtifactError
from digit_serving.errors import ServingError
from digit_serving.model_server import config
from digit_serving.model_server.budget import Budget, TimeLeft, check_deadline, inputs_size
from digit_serving.model_server.flags import Options
from digit_serving.model_server.manager import Manager, State
from digit_serving.model_server.metrics import Metrics, observe
from digit_serving.model_server.servable import Array, Servable, decode, encode, warm_up

_DEFAULT_SIGNATURE = "serving_default"


class ServerCore:
    """TensorFlow Serving's API as methods, which raise ServingError if a call fails."""

    def __init__(self, options: Options, public_key: Path | None = None) -> None:
        """Start without models. With a public key, versions that its owner has not signed are not loaded.

        Raises ServingError if the flags or the file of batching are invalid.
        """
        self._options, self._public_key = options, public_key
        self._max_batch_size = config.read_max_batch_size(options)
        self.budget = Budget(config.read_max_bytes(options))
        self.metrics = Metrics()
        self._manager = Manager(options, self._load)
        self.configure, self.reload = self._manager.configure, self._manager.reload

    def predict(self, request: PredictRequest, time_left: TimeLeft = lambda: math.inf) -> PredictResponse:
        """Answer the gRPC call Predict, and count it."""
        spec, response = request.model_spec, PredictResponse()
        with (
            self.metrics.request(spec.name, "Predict", "GRPC"),
            self._manager.lease(_spec(request)) as servable,
            self.budget.spend(inputs_size(request.inputs), time_left),
        ):
            outputs = self._predict(servable, request, time_left)
            response.model_spec.name, response.model_spec.version.value = spec.name, servable.version
            response.model_spec.signature_name = spec.signature_name or _DEFAULT_SIGNATURE
            for alias, array in outputs.items():
                encode(array, response.outputs[alias], self._options.enable_serialization_as_tensor_content)
        return response

    def run(self, spec: ModelSpec, inputs: Mapping[str, Array], time_left: TimeLeft) -> dict[str, Array]:
        """Return all outputs of the signature that `spec` names."""
        with self._manager.lease(spec) as servable:
            return self._run(servable, PredictRequest(model_spec=spec), inputs, time_left)

    def metadata(self, request: Any) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the version that the request selects, and its signatures."""
        spec, response = _spec(request), get_model_metadata_pb2.GetModelMetadataResponse()
        if set(request.metadata_field) != {"signature_def"}:
            raise ServingError("metadata_field must be signature_def")
        with self._manager.lease(spec) as servable:
            response.model_spec.name, response.model_spec.version.value = spec.name, servable.version
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request: Any) -> GetModelStatusResponse:
        """Return the state of each version, newest first."""
        response = GetModelStatusResponse()
        for version in self._manager.status(_spec(request)):
            error = version.error if version.state == State.END else None
            status = {"error_code": error.code, "error_message": error.message} if error else {}
            response.model_version_status.add(version=version.number, state=version.state, status=status)
        return response

    def inputs(self, spec: ModelSpec) -> Any:
        """Return the TensorInfo of each input of the signature that `spec` names."""
        name = spec.signature_name or _DEFAULT_SIGNATURE
        with self._manager.lease(spec) as servable:
            if name not in servable.signature_defs:
                raise ServingError(f'Serving signature name: "{name}" not found in signature def')
            return servable.signature_defs[name].inputs

    def reload_config(self, request: Any) -> ReloadConfigResponse:
        """Replace the configuration, and wait until its new models are loaded."""
        if not request.config.HasField("model_config_list"):
            raise ServingError("the new configuration must have a model_config_list")
        self.reload(request.config)
        return ReloadConfigResponse(status={})

    def unimplemented(self, request: Any) -> NoReturn:
        """Raise UNIMPLEMENTED, for a call of TensorFlow Serving that the drop-in lacks."""
        raise ServingError("This model server implements Predict only.", "UNIMPLEMENTED")

    def _load(self, directory: Path, version: int) -> Servable:
        with self.metrics.load(str(directory)):
            if self._public_key:
                # model-signing is optional, and takes a second to import.
                from digit_serving.releases import signatures

                try:
                    signatures.verify(directory, self._public_key)
                except ArtifactError as error:
                    raise ServingError(str(error), "FAILED_PRECONDITION") from error
            servable = Servable(directory, version, self._options)
        if self._options.enable_model_warmup:
            iterations = max(self._options.num_request_iterations_for_warmup, 1)
            warm_up(directory, lambda request: self._warm_up(servable, request), iterations)
        return servable

    def _warm_up(self, servable: Servable, request: PredictRequest) -> None:
        self.budget.check(inputs_size(request.inputs))
        self._predict(servable, request, lambda: math.inf)

    def _predict(self, servable: Servable, request: PredictRequest, time_left: TimeLeft) -> dict[str, Array]:
        inputs = {alias: decode(alias, proto) for alias, proto in request.inputs.items()}
        return self._run(servable, request, inputs, time_left)

    def _run(
        self, servable: Servable, request: PredictRequest, inputs: Mapping[str, Array], time_left: TimeLeft
    ) -> dict[str, Array]:
        spec = request.model_spec
        name = spec.signature_name or _DEFAULT_SIGNATURE
        signature = servable.signatures.get(name)
        if signature is None:
            raise ServingError(f'Serving signature key "{name}" not found.', "FAILED_PRECONDITION")
        feeds, fetches = signature.feeds(inputs), signature.fetches(request.output_filter)
        limit, arrays = self._max_batch_size, list(feeds.values())
        rows = None if limit is None else _count_rows(arrays, limit)
        check_deadline(time_left)
        started = time.perf_counter()
        results = servable.run(tuple(feeds), tuple(fetches.values()), arrays)
        observe(self.metrics.runtime_latency, started, spec.name, "Predict", "TF1")
        check_deadline(time_left)
        if rows is not None and any(array.shape[:1] != (rows,) for array in results):
            message = "batched outputs must have the inputs' size in dimension 0"
            raise ServingError(message, "FAILED_PRECONDITION")
        return dict(zip(fetches, results, strict=True))


def _spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise ServingError("Missing ModelSpec")
    return request.model_spec


def _count_rows(arrays: list[Array], limit: int) -> int:
    """Return the number of rows. Raise ServingError for inputs that TensorFlow Serving's batches refuse."""
    sizes = {len(array) if array.ndim else 0 for array in arrays}
    if len(sizes) != 1 or 0 in sizes:
        raise ServingError("batched inputs must have the same number of rows, and at least one")
    (rows,) = sizes
    if rows > limit:
        raise ServingError(f"{rows} rows exceed max_batch_size, {limit}; send fewer rows in a call")
    return rows
