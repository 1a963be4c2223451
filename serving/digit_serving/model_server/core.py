"""Server core: TensorFlow Serving's API without a transport."""

import time
from pathlib import Path
from typing import Any, NoReturn

from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from digit_client.artifact.versions import ArtifactError
from digit_serving.errors import ServingError
from digit_serving.model_server.batching import Batcher
from digit_serving.model_server.flags import Options
from digit_serving.model_server.manager import Manager, State
from digit_serving.model_server.metrics import Metrics, observe
from digit_serving.model_server.servable import Array, Servable, encode, warm_up

_DEFAULT_SIGNATURE = "serving_default"
_NO_DEADLINE = float("inf")


class ServerCore:
    """TensorFlow Serving's API as methods, which raise ServingError if a call fails.

    A `deadline` is a time on the monotonic clock, in seconds.
    """

    def __init__(self, options: Options, batcher: Batcher | None, public_key: Path | None = None) -> None:
        """Start without models. With a public key, versions that its owner has not signed are not loaded."""
        self._options, self._batcher, self._public_key = options, batcher, public_key
        self.metrics = Metrics()
        self._manager = Manager(options, self._load)
        self.reload = self._manager.reload

    def predict(self, request: PredictRequest, deadline: float) -> PredictResponse:
        """Run the model."""
        with self._manager.lease(_spec(request)) as servable:
            return self._predict(servable, request, deadline)

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
                _verify(directory, self._public_key)
            servable = Servable(directory, version, self._options)
        if self._options.enable_model_warmup:
            iterations = max(self._options.num_request_iterations_for_warmup, 1)
            warm_up(directory, lambda request: self._predict(servable, request, _NO_DEADLINE), iterations)
        return servable

    def _predict(self, servable: Servable, request: PredictRequest, deadline: float) -> PredictResponse:
        model, name = request.model_spec.name, request.model_spec.signature_name or _DEFAULT_SIGNATURE
        signature = servable.signatures.get(name)
        if signature is None:
            raise ServingError(f'Serving signature key "{name}" not found.', "FAILED_PRECONDITION")
        feeds, fetches = signature.feeds(request), signature.fetches(request)
        _check_deadline(deadline)
        started = time.perf_counter()
        arrays = self._run(servable, feeds, tuple(fetches.values()))
        observe(self.metrics.runtime_latency, started, model, "Predict", "TF1")
        _check_deadline(deadline)
        response = PredictResponse()
        spec, outputs = response.model_spec, response.outputs
        spec.name, spec.signature_name, spec.version.value = model, name, servable.version
        for alias, array in zip(fetches, arrays, strict=True):
            encode(array, outputs[alias], self._options.enable_serialization_as_tensor_content)
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


def _verify(directory: Path, public_key: Path) -> None:
    # model-signing is optional, and takes a second to import.
    from digit_serving.releases import signatures

    try:
        signatures.verify(directory, public_key)
    except ArtifactError as error:
        raise ServingError(str(error), "FAILED_PRECONDITION") from error


def _check_deadline(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise ServingError("Deadline exceeded", "DEADLINE_EXCEEDED")
