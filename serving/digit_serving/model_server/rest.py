"""The REST API's JSON: a predict request's tensors in, a response's tensors out."""

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from threading import Condition
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import ClosingIterator

from digit_serving.model_server.core import Core
from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options
from digit_serving.model_server.tensors import Array, decode, encode, type_name

Inputs = Mapping[str, Any]  # TensorInfo by name
_TYPES = {dict: "Object", str: "String", int: "Number", float: "Number", type(None): "Null"}


def read(body: bytes, request: PredictRequest, inputs_of: Callable[[Any], Inputs]) -> bool:
    """Fills `request` from `body`, where NaN and Infinity are numbers; whether the tensors are by row.

    Raises:
        ServingError: the body is not JSON, or not formatted as the signature's inputs.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise ServingError(
            f"JSON Parse error: Invalid value. at offset: {getattr(error, 'pos', 0)}"
        ) from None
    if not isinstance(document, dict) or not isinstance(document.get("signature_name", ""), str):
        problem = (
            "'signature_name' key must be a string value." if isinstance(document, dict) else "Is not object"
        )
        raise ServingError(f"JSON Value: {_text(document)} {problem}")
    request.model_spec.signature_name = document.get("signature_name", "")
    inputs, by_row = inputs_of(request.model_spec), "instances" in document
    if by_row == ("inputs" in document):
        problem = f"JSON Value: {_text(document)} Not formatted correctly expecting only one of them"
        raise ServingError(problem if by_row else "Missing 'inputs' or 'instances' key")
    arrays = _rows(document["instances"], inputs) if by_row else _columns(document["inputs"], inputs)
    for name, array in arrays.items():
        encode(array, request.inputs[name], as_content=True)
    return by_row


def _columns(value: Any, inputs: Inputs) -> dict[str, Array]:
    if not _is_object(value) and len(inputs) > 1:
        raise ServingError("inputs is a plain value/list, but expecting an object as multiple input tensors")
    columns = value if _is_object(value) else dict.fromkeys(inputs, value)
    for name in inputs:
        if name not in columns:
            raise ServingError(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(columns[name], info.dtype) for name, info in inputs.items()}


def _rows(rows: Any, inputs: Inputs) -> dict[str, Array]:
    if not isinstance(rows, list) or not rows:
        raise ServingError(f"JSON Value: {_text(rows)} Excepting 'instances' to be an list/array with values")
    named = _is_object(rows[0])
    if len(inputs) > 1 and not named:
        raise ServingError(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
        )
    columns: dict[str, list[Array]] = {name: [] for name in inputs}
    for index, row in enumerate(rows):
        if _is_object(row) != named:
            expected = "object but got list" if named else "value/list but got object"
            raise ServingError(f"Expecting {expected} at item {index} of input list")
        try:
            if named and row.keys() != inputs.keys():
                raise ServingError(f"JSON object: keys must be equal to: {','.join(sorted(inputs))}")
            for name, column in columns.items():
                column.append(_array(row[name] if named else row, inputs[name].dtype))
                if column[-1].shape != column[0].shape:
                    raise ServingError(f"Expecting tensor size: {column[0].size} but got: {column[-1].size}")
        except ServingError as error:
            raise ServingError(
                f"Failed to process element: {index} of 'instances' list. Error: {error}"
            ) from None
    return {name: np.stack(column) for name, column in columns.items()}


def _array(value: Any, type_number: int) -> Array:
    dtype, name, nested = tf.as_dtype(type_number), type_name(type_number), np.array(value, object)
    flat = [_bytes(leaf) for leaf in nested.flat] if name == "string" else nested.ravel().tolist()
    kinds = (int, float) if dtype.is_floating else ({"string": bytes, "bool": bool}.get(name, int),)
    whole, largest = 2 ** (53 if name == "double" else 24) - 1, dtype.max if dtype.is_floating else 0
    for leaf in flat:
        if isinstance(leaf, list):
            raise ServingError("Encountered list at unexpected level or size")
        if type(leaf) not in kinds:
            found = f"{_text(leaf)} Type: {_TYPES.get(type(leaf), str(leaf))}"
            raise ServingError(f"JSON Value: {found} is not of expected type: {name}")
        if largest and float("inf") != abs(leaf) > (whole if type(leaf) is int else largest):
            raise ServingError(f"Cannot convert JSON value: {leaf} to {name} without loss of precision.")
    return np.array(flat, dtype.as_numpy_dtype).reshape(nested.shape)


def _bytes(leaf: Any) -> Any:
    if not isinstance(leaf, dict) or _is_object(leaf):
        return leaf.encode() if isinstance(leaf, str) else leaf
    try:
        return base64.b64decode(leaf["b64"], validate=True)
    except ValueError:
        raise ServingError("Unable to base64 decode") from None


def _is_object(value: Any) -> bool:
    """A JSON object, other than the one that stands for bytes."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write(response: PredictResponse, by_row: bool) -> str:
    """The answer to a request by row or by column; ServingError if the outputs are not all as many rows."""
    arrays = {name: decode(name, proto) for name, proto in response.outputs.items()}
    columns = {name: _values(name, array) for name, array in arrays.items()}
    for name, array in arrays.items() if by_row else ():
        if array.ndim == 0:
            raise ServingError(f"Tensor name: {name} has no shape information ")
        if len(array) != (size := len(next(iter(columns.values())))):
            raise ServingError(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}"
            )
    answer = next(iter(columns.values())) if len(columns) == 1 else columns
    if by_row and len(columns) > 1:
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return _text({"predictions" if by_row else "outputs": answer})


def _values(name: str, array: Array) -> Any:
    """Nested lists; floats with six digits where these tell them apart, else with all that matter."""
    flat: Any = array.ravel().tolist()
    values = np.empty(array.size, object)
    if array.dtype.kind == "f":
        digits = 9 if array.itemsize < 8 else 17
        short, long = ([float(f"{value:.{n}g}") for value in flat] for n in (6, digits))
        flat = np.where(np.array(short, array.dtype) == array.ravel(), short, long)
    elif array.dtype.kind == "O" and name.endswith("_bytes"):
        flat = [{"b64": base64.b64encode(value).decode()} for value in flat]
    elif array.dtype.kind == "O":
        flat = [value.decode(errors="replace") for value in flat]
    values[:] = flat
    return values.reshape(array.shape).tolist()


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
            by_row = read(body, request, self._core.inputs)
            return write(self._core.predict(request, deadline), by_row)
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
