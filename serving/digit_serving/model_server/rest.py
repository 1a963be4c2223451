"""The REST transport, and the page of metrics beside it."""

import json
import re
import time
from typing import Any

from google.protobuf.json_format import MessageToDict
from grpc import StatusCode
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from werkzeug.wrappers import Request, Response

from digit_serving.model_server import json_format
from digit_serving.model_server.core import Core
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.model_server.metrics import Metrics

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.I)
_MODEL = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<method>metadata))?", re.I)
_CORS = {"Origin": "*", "Methods": "POST, GET", "Headers": "Content-Type"}
_STATUSES = (
    "INVALID_ARGUMENT 400 FAILED_PRECONDITION 400 OUT_OF_RANGE 400 UNAUTHENTICATED 401 PERMISSION_DENIED 403 "
    "NOT_FOUND 404 ALREADY_EXISTS 409 ABORTED 409 RESOURCE_EXHAUSTED 429 CANCELLED 499 UNIMPLEMENTED 501 "
    "UNAVAILABLE 503 DEADLINE_EXCEEDED 504"
).split()
_STATUS_OF = dict(zip(_STATUSES[::2], map(int, _STATUSES[1::2]), strict=True))


class RestApi:
    """A WSGI application; the metrics are at `metrics_path`, unless that is empty."""

    def __init__(self, options: Options, core: Core, metrics: Metrics, metrics_path: str) -> None:
        self._options = options
        self._core = core
        self._metrics = metrics
        self._metrics_path = metrics_path

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        if request.path == self._metrics_path:
            response = Response(self._metrics.page(), content_type="text/plain")
        elif not request.path.lower().startswith("/v1/"):
            response = Response(status=404)
        else:
            response = self._answer(request)
        if self._options.rest_api_enable_cors_support:
            response.headers.extend({f"Access-Control-Allow-{name}": value for name, value in _CORS.items()})
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS" and self._options.rest_api_enable_cors_support:
            return Response()
        pattern = {"POST": _PREDICT, "GET": _MODEL}.get(request.method)
        match = pattern.fullmatch(request.path) if pattern else None
        try:
            if match is None:
                raise ServingError(f"Malformed request: {request.method} {request.path}")
            with self._metrics.request(match["name"] or "", match["method"] or "", "REST"):
                body, status = self._call(_spec(match), match["method"], request.get_data()), 200
        except ServingError as error:
            body = json.dumps({"error": error.message}, indent=4, ensure_ascii=False)
            status = _STATUS_OF.get(error.code.name, 500)
        return Response(body, status, content_type="application/json")

    def _call(self, spec: ModelSpec, method: str | None, body: bytes) -> str:
        if method == "predict":
            return self._predict(PredictRequest(model_spec=spec), json_format.parse(body))
        if method in ("classify", "regress"):
            raise ServingError("This model server answers predict only.", StatusCode.UNIMPLEMENTED)
        if not spec.name:
            raise ServingError("Missing model name in request.")
        if method is None:
            return _json(self._core.status(GetModelStatusRequest(model_spec=spec)))
        fields = ["signature_def"]
        response = self._core.metadata(GetModelMetadataRequest(model_spec=spec, metadata_field=fields))
        signatures = SignatureDefMap.FromString(response.metadata["signature_def"].value)
        metadata = {
            "model_spec": _dict(response.model_spec),
            "metadata": {"signature_def": _dict(signatures)},
        }
        return json.dumps(metadata, indent=1)

    def _predict(self, request: PredictRequest, document: dict[str, Any]) -> str:
        deadline = time.monotonic() + self._options.rest_api_timeout_in_ms / 1000
        request.model_spec.signature_name = document.get("signature_name", "")
        signature = self._core.signature(request.model_spec)
        by_row = json_format.fill(request, document, signature.inputs)
        return json_format.answer(self._core.predict(request, deadline), by_row)


def _spec(match: re.Match[str]) -> ModelSpec:
    spec = ModelSpec(name=match["name"] or "", version_label=match["label"])
    if match["version"]:
        try:
            spec.version.value = int(match["version"])
        except ValueError:
            raise ServingError(f"Failed to convert version: {match['version']} to numeric.") from None
    return spec


def _json(message: Any) -> str:
    return json.dumps(_dict(message), indent=1)


def _dict(message: Any) -> Any:
    return MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
