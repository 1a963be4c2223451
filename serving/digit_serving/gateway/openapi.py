"""The API described for programs: OpenAPI 3.1, made from the types of the documents and from the errors."""

import base64
import http
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson
from flask import Blueprint, Response
from werkzeug.exceptions import (
    BadRequest,
    MethodNotAllowed,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)

from digit_client import (
    DeadlineExceededError,
    ImageError,
    ModelNotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from digit_client.images import to_png
from digit_serving.gateway import schemas
from digit_serving.gateway.context import REQUEST_ID_PATTERN
from digit_serving.gateway.errors import (
    RETRY_AFTER,
    InvalidSelectionError,
    MalformedBodyError,
    NotReadyError,
    RateLimitedError,
    TooManyImagesError,
    UnauthorizedError,
    document,
    meaning,
    status_and_code,
)
from digit_serving.gateway.routes import MAX_VERSION
from digit_serving.gateway.schemas import Images, Instances
from digit_serving.gateway.settings import Settings

_Node = dict[str, Any]

_TEXT: _Node = {"text/plain": {"schema": {"type": "string"}}}
_INDEX: _Node = {
    "application/json": {"schema": {"$ref": "#/components/schemas/Index"}},
    "text/html": {"schema": {"type": "string"}},
}
_OBJECT: _Node = {"application/json": {"schema": {"type": "object"}}}

_ANYWHERE = (MethodNotAllowed, Exception)
_GUARD = (UnauthorizedError, RateLimitedError)
_CALL = (*_GUARD, OverloadedError, ServiceError, UnavailableError, DeadlineExceededError)
_PREDICT = (
    BadRequest,
    MalformedBodyError,
    InvalidSelectionError,
    *ImageError.__subclasses__(),
    ModelNotFoundError,
    RequestEntityTooLarge,
    TooManyImagesError,
    UnsupportedMediaType,
    *_CALL,
)


def blueprint(settings: Settings) -> Blueprint:
    """The route of the description."""
    documents = Blueprint("openapi", __name__)

    # Few ask for it, and those who start the gateway need not wait for it.
    @cache
    def content() -> bytes:
        return orjson.dumps(describe(settings))

    @documents.get("/openapi.json")
    def openapi() -> Response:
        return Response(content(), content_type="application/json")

    return documents


def describe(settings: Settings) -> _Node:
    """The whole description, with the limits that the settings set."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Digits",
            "version": version("digit-serving"),
            "summary": "Reads the handwritten digit on an image.",
            "description": "Every answer has the header X-Request-ID, by which it is found in the log. Every "
            "error is a problem as RFC 9457 has it, with a `code` that stays the same; for a path that isn't "
            "here it is `not_found`. Where the service asks for keys, what is under `/v1` needs the header "
            "`Authorization: Bearer <key>`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [
            {"name": "digits", "description": "Reading digits"},
            {"name": "service", "description": "Running the service"},
        ],
        "paths": {
            "/": {
                "get": _operation("index", "service", "Where everything is; for browsers, the page.", _INDEX)
            },
            "/v1/predict": {"post": _predict(settings)},
            "/v1/models": {"get": _models(settings)},
            "/livez": {"get": _operation("isAlive", "service", "Whether the process lives.", _json("Alive"))},
            "/readyz": {
                "get": _operation(
                    "isReady", "service", "Whether it can answer now.", _json("Ready"), NotReadyError
                )
            },
            "/metrics": {"get": _operation("metrics", "service", "What was counted, for Prometheus.", _TEXT)},
            "/openapi.json": {"get": _operation("describe", "digits", "This description.", _OBJECT)},
        },
        "components": {
            "schemas": _schemas(settings.max_images),
            "parameters": {"RequestId": _request_id()},
            "headers": _headers(),
            "securitySchemes": {"Key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _predict(settings: Settings) -> _Node:
    version = {"type": "integer", "minimum": 0, "maximum": MAX_VERSION}
    label = {"type": "string"}
    return {
        **_operation("predict", "digits", "What digit each image shows.", _json("Predictions"), *_PREDICT),
        "security": _security(settings),
        "description": "Without `version` and `label` the default version answers. "
        f"A request may have {settings.max_body:,} bytes, an image {settings.max_pixels:,} pixels.",
        "parameters": [
            _ref("parameters", "RequestId"),
            _query("version", "Ask this version of the model.", version),
            _query("label", "Ask the version with this label; not together with `version`.", label),
            _query("include", "Have each prediction carry what the network saw.", {"const": "image"}),
        ],
        "requestBody": {"required": True, "content": _bodies(settings.max_images)},
    }


def _models(settings: Settings) -> _Node:
    return {
        **_operation("listModels", "digits", "The model's versions and labels.", _json("Models"), *_CALL),
        "security": _security(settings),
    }


def _security(settings: Settings) -> list[_Node]:
    return [{"Key": []}] if settings.api_keys else []


def _bodies(most: int) -> _Node:
    file = {"type": "string", "format": "binary"}
    array = f"NumPy's uint8 [n, 28, 28] as `numpy.save` writes it, n ≤ {most}: light ink on dark."
    return {
        "application/json": {
            "schema": {"oneOf": [_ref("schemas", "Images"), _ref("schemas", "Instances")]},
            "examples": bodies(),
        },
        "image/*": {"schema": {**file, "description": "PNG, JPEG, GIF, BMP, WebP, TIFF in strips, or PPM."}},
        "application/octet-stream": {"schema": {**file, "description": "The same, whatever its format."}},
        "multipart/form-data": {"schema": _ref("schemas", "Form")},
        "application/x-npy": {"schema": {**file, "description": array}},
    }


def _operation(name: str, tag: str, summary: str, content: _Node, *errors: type[Exception]) -> _Node:
    answer = {"description": "The answer.", "headers": _named_headers("X-Request-ID"), "content": content}
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "parameters": [_ref("parameters", "RequestId")],
        "responses": {"200": answer, **_problems(*errors, *_ANYWHERE)},
    }


def _problems(*errors: type[Exception]) -> _Node:
    codes: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for error in errors:
        status, code = status_and_code(error)
        codes[status][code] = meaning(error)
    return {str(status): _problem(status, codes[status]) for status in sorted(codes)}


def _problem(status: int, codes: Mapping[str, str]) -> _Node:
    more = ["Allow"] if status == http.HTTPStatus.METHOD_NOT_ALLOWED else []
    more += ["WWW-Authenticate"] if status == http.HTTPStatus.UNAUTHORIZED else []
    more += ["Retry-After"] if status in RETRY_AFTER else []
    schema = {**_ref("schemas", "Problem"), "properties": {"code": {"enum": [*codes]}}}
    example = document(status, *next(iter(codes.items())), schemas.EXAMPLE_ID)
    return {
        "description": "\n".join(f"- `{code}`: {text}" for code, text in codes.items()),
        "headers": _named_headers("X-Request-ID", *more),
        "content": {"application/problem+json": {"schema": schema, "example": example}},
    }


def _headers() -> _Node:
    return {
        "X-Request-ID": _header(
            "The request's id.", {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN}$"}
        ),
        "Retry-After": _header("Seconds to wait before the next try.", {"type": "integer", "minimum": 1}),
        "WWW-Authenticate": _header("The scheme, Bearer.", {"type": "string"}),
        "Allow": _header("The methods that there are.", {"type": "string"}),
    }


def _header(description: str, schema: _Node) -> _Node:
    return {"description": description, "required": True, "schema": schema}


def _named_headers(*names: str) -> _Node:
    return {name: _ref("headers", name) for name in names}


def _request_id() -> _Node:
    return {
        "name": "X-Request-ID",
        "in": "header",
        "description": "The request's id. One is made where there is none or where it does not match "
        f"`{REQUEST_ID_PATTERN}`.",
        "schema": {"type": "string"},
    }


def _query(name: str, description: str, schema: _Node) -> _Node:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _schemas(most: int) -> dict[str, _Node]:
    found = schemas.schemas()
    for name, field in (("Images", "images"), ("Instances", "instances"), ("Form", "image")):
        found[name]["properties"][field]["maxItems"] = most
    return found


def _json(name: str) -> _Node:
    return {"application/json": {"schema": _ref("schemas", name)}}


def _ref(kind: str, name: str) -> _Node:
    return {"$ref": f"#/components/{kind}/{name}"}


def bodies() -> dict[str, Any]:
    """A one, in each of the ways that JSON has for it."""
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 13:15] = 255
    images: Images = {"images": [base64.b64encode(to_png(digit)).decode()]}
    instances: Instances = {"instances": [(digit.reshape(784) // 255).tolist()]}
    return {
        "file": {"summary": "An image file", "value": images},
        "pixels": {"summary": "The pixels", "value": instances},
    }
