"""The REST transport, and the page of metrics beside it."""

import json
import re
import time
from threading import Condition
from typing import Any

from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import ClosingIterator

from digit_serving.model_server import json_format
from digit_serving.model_server.core import Core
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options

_MODEL = r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PATHS = {
    "GET": re.compile(rf"{_MODEL}(?:/(?P<call>metadata))?", re.IGNORECASE),
    "POST": re.compile(rf"{_MODEL}:(?P<call>classify|regress|predict)", re.IGNORECASE),
}
_CORS = {"Origin": "*", "Methods": "POST, GET", "Headers": "Content-Type"}
_STATUS = dict.fromkeys(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"), 400)
_STATUS |= {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}
_STATUS |= {"CANCELLED": 499, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504}
_STATUS |= {"ALREADY_EXISTS": 409, "ABORTED": 409}  # and all others 500


class RestApi:
    """A WSGI application; the metrics are at `metrics_path`, unless that is empty."""

    def __init__(self, options: Options, core: Core, metrics_path: str) -> None:
        self._timeout = options.rest_api_timeout_in_ms / 1000
        self._core, self._metrics_path = core, metrics_path
        self._cors = _CORS if options.rest_api_enable_cors_support else {}

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        if request.path == self._metrics_path:
            response = Response(self._core.metrics.page(), content_type="text/plain")
        elif not request.path.lower().startswith("/v1/") or (self._cors and request.method == "OPTIONS"):
            response = Response(status=200 if self._cors and request.method == "OPTIONS" else 404)
        else:
            response = self._answer(request)
        response.headers.extend({f"Access-Control-Allow-{name}": value for name, value in self._cors.items()})
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        path = _PATHS.get(request.method)
        match = path.fullmatch(request.path) if path else None
        try:
            if match is None:
                raise ServingError(f"Malformed request: {request.method} {request.path}")
            if int(match["version"] or 0) >= 2**63:
                raise ServingError(f"Failed to convert version: {match['version']} to numeric.")
            with self._core.metrics.request(match["name"] or "", match["call"] or "", "REST"):
                text = self._call(match["call"], _spec(match), request.get_data())
        except ServingError as error:
            return _error(error.message, _STATUS.get(error.code.name, 500))
        return Response(text, content_type="application/json")

    def _call(self, call: str | None, spec: ModelSpec, body: bytes) -> str:
        if not spec.name:
            raise ServingError("Missing model name in request.")
        if call in ("classify", "regress"):
            self._core.unimplemented()
        if call == "predict":
            deadline, request = time.monotonic() + self._timeout, PredictRequest(model_spec=spec)
            by_row = json_format.read(body, request, self._core.inputs)
            return json_format.write(self._core.predict(request, deadline), by_row)
        if call is None:
            return _json(self._core.status(GetModelStatusRequest(model_spec=spec)))
        asked = GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        response = self._core.metadata(asked)
        signatures = SignatureDefMap.FromString(response.metadata["signature_def"].value)
        metadata = f'{{"signature_def": {_json(signatures)}}}'
        return f'{{\n"model_spec": {_json(response.model_spec)},\n"metadata": {metadata}\n}}\n'


class DrainMiddleware:
    """WSGI middleware that counts the requests in flight; once it drains, it answers 503 to new ones."""

    def __init__(self, app: Any) -> None:
        self._app, self._in_flight, self._is_draining = app, 0, False
        self._changed = Condition()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        with self._changed:
            if self._is_draining:
                return _error("The server is shutting down.", 503)(environ, start_response)
            self._in_flight += 1
        try:
            return ClosingIterator(self._app(environ, start_response), self._finish)
        except BaseException:
            self._finish()
            raise

    def drain(self, grace: float) -> None:
        """Wait until no request is in flight, `grace` seconds at most."""
        with self._changed:
            self._is_draining = True
            self._changed.wait_for(lambda: not self._in_flight, grace)

    def _finish(self) -> None:
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()


def _error(message: str, status: int) -> Response:
    text = json.dumps({"error": message}, indent=4, ensure_ascii=False)
    return Response(text, status, content_type="application/json")


def _spec(match: re.Match[str]) -> ModelSpec:
    version = {"value": int(match["version"])} if match["version"] else None
    return ModelSpec(name=match["name"], version=version, version_label=match["label"])


def _json(message: Any) -> str:
    values = MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
    return json.dumps(values, indent=1)
