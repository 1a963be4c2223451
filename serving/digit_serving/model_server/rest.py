"""REST API: a WSGI application over the core, with TensorFlow Serving's paths and JSON."""

import base64
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from werkzeug.wrappers import Request, Response

from digit_serving.errors import ServingError
from digit_serving.model_server.budget import json_size, shape_size
from digit_serving.model_server.core import ServerCore
from digit_serving.model_server.flags import Options
from digit_serving.model_server.servable import Array, type_name

Inputs = Mapping[str, Any]  # TensorInfo by name

_MODEL = r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>[0-9]{1,18})|/labels/(?P<label>[^/:]+))?"
_PATHS = {
    "GET": re.compile(rf"{_MODEL}(?:/(?P<call>metadata))?"),
    "POST": re.compile(rf"{_MODEL}:(?P<call>classify|regress|predict)"),
}
_DECODER = json.JSONDecoder(object_pairs_hook=lambda pairs: dict(reversed(pairs)))
"""JSON decoder like TensorFlow Serving's: the first of equal keys counts, and `raw_decode` ignores any text
after the document."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_IN_JSON = ("half", "bfloat16", "uint16")
_CORS = {"Origin": "*", "Methods": "POST, GET", "Headers": "Content-Type"}
_HTTP_STATUS = {
    **dict.fromkeys(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"), 400),
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""HTTP status of each gRPC status code; any other code becomes 500."""


class RestApi:
    """WSGI application. Serves the metrics at `metrics_path`, unless the path is empty."""

    def __init__(self, options: Options, core: ServerCore, metrics_path: str) -> None:
        self._timeout = options.rest_api_timeout_in_ms / 1000
        self._core, self._metrics_path = core, metrics_path
        self._cors = _CORS if options.rest_api_enable_cors_support else {}

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        query = request.query_string.decode(errors="replace")
        # Like TensorFlow Serving, take a query for a part of the path, so that no path with a query matches.
        path = f"{request.path}?{query}" if query else request.path
        if path == self._metrics_path:
            response = Response(self._core.metrics.page(), content_type="text/plain")
        elif self._cors and request.method == "OPTIONS":
            response = Response()
        elif path.startswith("/v1/"):
            response = self._answer(request, path)
        else:
            response = Response(status=404)
        response.headers.extend({f"Access-Control-Allow-{name}": value for name, value in self._cors.items()})
        return response(environ, start_response)

    def _answer(self, request: Request, path: str) -> Response:
        pattern = _PATHS.get(request.method)
        match = pattern.fullmatch(path) if pattern else None
        name, call = (match["name"] or "", match["call"] or "") if match else ("", "")
        try:
            # TensorFlow Serving observes no latency for metadata.
            with self._core.metrics.request(name, None if call == "metadata" else call, "REST"):
                if match is None:
                    raise ServingError(f"Malformed request: {request.method} {path}")
                self._core.budget.check(request.content_length or 0)
                answer = self._call(call, _spec(match), request.get_data())
        except ServingError as error:
            status = _HTTP_STATUS.get(error.code, 500)
            return Response(_dump({"error": error.message}), status, content_type="application/json")
        return Response(answer, content_type="application/json")

    def _call(self, call: str, spec: ModelSpec, body: bytes) -> str:
        if not spec.name:
            raise ServingError("Missing model name in request.")
        if call in ("classify", "regress"):
            self._core.unimplemented(spec)
        if call == "predict":
            return self._predict(spec, body)
        if not call:
            return json.dumps(_to_dict(self._core.status(GetModelStatusRequest(model_spec=spec))), indent=1)
        request = GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        document = _to_dict(self._core.metadata(request))
        del document["metadata"]["signature_def"]["@type"]  # TensorFlow Serving's JSON lacks it
        return json.dumps(document, indent=1)

    def _predict(self, spec: ModelSpec, body: bytes) -> str:
        deadline, budget = time.monotonic() + self._timeout, self._core.budget

        def time_left() -> float:
            return max(deadline - time.monotonic(), 0.0)

        with budget.spend(json_size(body), time_left):
            arrays, by_row = self._read(spec, body)
        with budget.spend(sum(shape_size(array.shape) for array in arrays.values()), time_left):
            return _format(self._core.run(spec, arrays, time_left), by_row)

    def _read(self, spec: ModelSpec, body: bytes) -> tuple[dict[str, Array], bool]:
        """Return the arrays of the body, and True if they came by row. Writes the signature into `spec`."""
        document = _parse(body)
        spec.signature_name = document.get("signature_name", "")
        inputs, by_row = self._core.inputs(spec), "instances" in document
        if by_row == ("inputs" in document):
            raise ServingError("the body must have either 'instances' or 'inputs'")
        columns = (
            _from_rows(document["instances"], inputs) if by_row else _from_inputs(document["inputs"], inputs)
        )
        return {name: _to_array(columns[name], info.dtype) for name, info in inputs.items()}, by_row


def _parse(body: bytes) -> dict[str, Any]:
    """Return the body's object. Raises ServingError for other JSON, or a `signature_name` of another type."""
    try:
        document, _ = _DECODER.raw_decode(body.decode("utf-8-sig").lstrip())
        # An escape may be half of a surrogate pair. No name contains one, and no answer could be encoded.
        if _SURROGATE.search(body):
            _dump(document).encode()
    except UnicodeEncodeError:
        raise ServingError("JSON Parse error: a string has half of a surrogate pair") from None
    except (RecursionError, ValueError) as error:
        raise ServingError(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise ServingError("the body must be a JSON object")
    if not isinstance(document.get("signature_name", ""), str):
        raise ServingError("'signature_name' must be a string")
    return document


def _spec(match: re.Match[str]) -> ModelSpec:
    version = {"value": int(match["version"])} if match["version"] else None
    return ModelSpec(name=match["name"], version=version, version_label=match["label"])


def _to_dict(message: Any) -> Any:
    return MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _from_inputs(value: Any, inputs: Inputs) -> dict[str, Any]:
    """Return the value of each input: those of an object, or the value of the only input."""
    if not _is_object(value):
        if len(inputs) > 1:
            raise ServingError(f"'inputs' must be an object with the keys {sorted(inputs)}")
        return dict.fromkeys(inputs, value)
    if missing := sorted(inputs.keys() - value.keys()):
        raise ServingError(f"'inputs' lacks {missing}")
    return dict(value)


def _from_rows(rows: Any, inputs: Inputs) -> dict[str, Any]:
    """Return the values of each input in all rows, which are objects, or values of the only input."""
    if not isinstance(rows, list) or not rows:
        raise ServingError("'instances' must be a list with at least one entry")
    if not _is_object(rows[0]) and len(inputs) == 1:
        return dict.fromkeys(inputs, rows)
    if any(not _is_object(row) or row.keys() != inputs.keys() for row in rows):
        raise ServingError(f"each entry of 'instances' must be an object with the keys {sorted(inputs)}")
    return {name: [row[name] for row in rows] for name in inputs}


def _to_array(value: Any, type_number: int) -> Array:
    dtype, name, nested = tf.as_dtype(type_number), type_name(type_number), np.array(value, object)
    flat = [_to_bytes(leaf) for leaf in nested.flat] if name == "string" else nested.ravel().tolist()
    if name in _NOT_IN_JSON:
        raise ServingError(f"Conversion of JSON Value to type: {name} is not supported", "UNIMPLEMENTED")
    types = (int, float) if dtype.is_floating else ({"string": bytes, "bool": bool}.get(name, int),)
    for leaf in flat:
        if isinstance(leaf, list):
            raise ServingError("lists at the same level must have the same length and depth")
        if type(leaf) not in types:
            raise ServingError(f"JSON Value: {_dump(leaf)} is not of expected type: {name}")
    try:
        with np.errstate(over="ignore"):  # a float out of range becomes infinite
            return np.array(flat, dtype.as_numpy_dtype).reshape(nested.shape)
    except OverflowError:
        raise ServingError(f"a number is out of range for {name}") from None


def _to_bytes(leaf: Any) -> Any:
    try:
        if not isinstance(leaf, dict) or _is_object(leaf):
            return leaf.encode() if isinstance(leaf, str) else leaf
        text = leaf["b64"]
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ServingError("Unable to base64 decode") from None


def _is_object(value: Any) -> bool:
    """True for a JSON object other than `{"b64": "…"}`, the notation of bytes."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))


def _format(outputs: dict[str, Array], by_row: bool) -> str:
    """Return the answer's JSON. Raises ServingError if `by_row` and the outputs differ in length."""
    sizes = {array.shape[:1] for array in outputs.values()}
    if by_row and (len(sizes) != 1 or () in sizes):
        raise ServingError(
            "the outputs have no common size in dimension 0; send 'inputs' in place of 'instances'"
        )
    columns = {name: _to_list(name, array) for name, array in outputs.items()}
    answer: Any = next(iter(columns.values())) if len(columns) == 1 else columns
    if by_row and len(columns) > 1:
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return _dump({"predictions" if by_row else "outputs": answer})


def _to_list(name: str, array: Array) -> Any:
    """Return nested lists: floats with the fewest digits that keep the value, bytes in base64."""
    if array.dtype.kind == "f":
        return array.astype(str).astype(float).tolist()

    def to_json(value: Any) -> Any:
        if isinstance(value, list):
            return [to_json(each) for each in value]
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode(errors="replace")

    return to_json(array.tolist()) if array.dtype.kind == "O" else array.tolist()
