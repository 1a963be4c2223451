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

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PATHS = {
    "GET": re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<call>metadata))?", re.I),
    "POST": re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<call>classify|regress|predict)", re.I),
}
_CORS = {"Origin": "*", "Methods": "POST, GET", "Headers": "Content-Type"}
_HTTP_STATUS = dict.fromkeys(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"), 400)
_HTTP_STATUS |= {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
}
_HTTP_STATUS |= {"CANCELLED": 499, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504}
_HTTP_STATUS |= {"ALREADY_EXISTS": 409, "ABORTED": 409}  # and all others 500


class RestApi:
    """A WSGI application; the metrics are at `metrics_path`, unless that is empty."""

    def __init__(self, options: Options, core: Core, metrics_path: str) -> None:
        self._timeout = options.rest_api_timeout_in_ms / 1000
        self._cors = options.rest_api_enable_cors_support
        self._core = core
        self._metrics_path = metrics_path

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        if request.path == self._metrics_path:
            response = Response(self._core.metrics.page(), content_type="text/plain")
        elif request.path.lower().startswith("/v1/"):
            response = Response() if self._cors and request.method == "OPTIONS" else self._answer(request)
        else:
            response = Response(status=404)
        for name, value in _CORS.items() if self._cors else ():
            response.headers[f"Access-Control-Allow-{name}"] = value
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        path = _PATHS.get(request.method)
        match = path.fullmatch(request.path) if path else None
        try:
            if match is None:
                raise ServingError(f"Malformed request: {request.method} {request.path}")
            name, call = match["name"] or "", match["call"] or ""
            with self._core.metrics.request(name, call, "REST"):
                text, status = self._call(_spec(match), call, request.get_data()), 200
        except ServingError as error:
            text = json.dumps({"error": error.message}, indent=4, ensure_ascii=False)
            status = _HTTP_STATUS.get(error.code.name, 500)
        return Response(text, status, content_type="application/json")

    def _call(self, spec: ModelSpec, call: str, body: bytes) -> str:
        if call == "predict":
            deadline, request = time.monotonic() + self._timeout, PredictRequest(model_spec=spec)
            by_row = json_format.read(body, request, self._core.inputs)
            return json_format.write(self._core.predict(request, deadline), by_row)
        if call in ("classify", "regress"):
            raise ServingError("This model server answers predict only.", StatusCode.UNIMPLEMENTED)
        if not spec.name:
            raise ServingError("Missing model name in request.")
        if not call:
            return json.dumps(_dict(self._core.status(GetModelStatusRequest(model_spec=spec))), indent=1)
        response = self._core.metadata(
            GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        )
        signatures = SignatureDefMap.FromString(response.metadata["signature_def"].value)
        metadata = {"signature_def": _dict(signatures)}
        return json.dumps({"model_spec": _dict(response.model_spec), "metadata": metadata}, indent=1)


def _spec(match: re.Match[str]) -> ModelSpec:
    spec = ModelSpec(name=match["name"], version_label=match["label"])
    try:
        if match["version"]:
            spec.version.value = int(match["version"])
    except ValueError:
        raise ServingError(f"Failed to convert version: {match['version']} to numeric.") from None
    return spec


def _dict(message: Any) -> Any:
    return MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
