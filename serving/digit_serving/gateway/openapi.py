"""OpenAPI 3.1 document of the HTTP API, generated from the types of bodies and the classes of errors."""

import base64
import re
from collections.abc import Iterable
from dataclasses import MISSING
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson
from flask import Blueprint, Response
from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from werkzeug.exceptions import BadRequest, MethodNotAllowed, RequestEntityTooLarge, UnsupportedMediaType

from digit_core import images, results
from digit_core.artifact.task_card import NAME
from digit_core.errors import (
    DeadlineExceededError,
    ImageShapeError,
    ImageTooLargeError,
    InvalidOutputError,
    ModelNotFoundError,
    NotAnImageError,
    OverloadedError,
    PixelValueError,
    ReaderMissingError,
    ReadingNotSupportedError,
    ServiceError,
    TooManyDigitsError,
    TruncatedImageError,
    UnavailableError,
)
from digit_core.options import Option, described
from digit_serving.gateway import errors, parsing, schemas
from digit_serving.gateway.door import features
from digit_serving.gateway.schemas import REQUEST_ID_PATTERN
from digit_serving.gateway.settings import Settings

_Json = dict[str, Any]

_ANY = (MethodNotAllowed, Exception)
KEYED = (*_ANY, errors.UnauthorizedError, errors.RateLimitedError, errors.InvalidSelectionError)
UPSTREAM = (OverloadedError, UnavailableError, DeadlineExceededError, ServiceError)
BODY = (BadRequest, errors.MalformedBodyError, RequestEntityTooLarge, UnsupportedMediaType)
IMAGE = (
    NotAnImageError,
    TruncatedImageError,
    ImageTooLargeError,
    ImageShapeError,
    PixelValueError,
    InvalidOutputError,
)
_RECOGNITION = (*KEYED, *UPSTREAM, *BODY, *IMAGE, ModelNotFoundError, errors.TooManyImagesError)
_BODIES = {"Predict": parsing.PredictQuery, "Read": parsing.ReadQuery}
"""Options of a body by the prefix of its schemas."""
_TEXT = {"schema": {"type": "string"}}
_REQUEST_ID = "X-Request-ID"
_HEADERS = {
    _REQUEST_ID: {
        "description": "The request's ID.",
        "schema": {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN}$"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next attempt.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "The authentication scheme, Bearer.", **_TEXT},
    "Allow": {"description": "The supported methods.", **_TEXT},
}
_ID_PARAMETER: _Json = {
    "name": _REQUEST_ID,
    "in": "header",
    "description": "The request's ID. The gateway generates one if the header is missing or does not match "
    f"`{REQUEST_ID_PATTERN}`.",
    **_TEXT,
}


def blueprint(settings: Settings) -> Blueprint:
    """Return the route /openapi.json."""
    documents = Blueprint("openapi", __name__)

    # Build the document on demand: it would delay every start, and few callers ask for it.
    @cache
    def content() -> bytes:
        return orjson.dumps(describe(settings))

    @documents.get("/openapi.json")
    def openapi() -> Response:
        return Response(content(), content_type="application/json")

    return documents


def describe(settings: Settings) -> _Json:
    """Return the document of a gateway with these settings."""
    paths: _Json = {}
    bodies = {
        f"{prefix}Pictures": {"required": True, "content": _pictures(settings, prefix)} for prefix in _BODIES
    }
    for path, operation in _operations(settings).items():
        is_api = path.startswith("/v1/")
        operation["tags"] = ["digits" if is_api else "service"]
        if settings.api_keys and is_api:
            operation["security"] = [{"Key": []}]
        paths[path] = {"post" if "requestBody" in operation else "get": operation}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Digits",
            "version": version("digits"),
            "summary": "Classifies images, and reads handwritten digits.",
            "description": "Every response carries the header `X-Request-ID`, which identifies the request "
            "in the log. Every error is a problem document (RFC 9457) with a stable `code`; an unknown path "
            "answers `not_found`. If the service requires API keys, requests under `/v1` need the header "
            "`Authorization: Bearer <key>`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "paths": paths,
        "components": {
            "headers": {name: {"required": True, **header} for name, header in _HEADERS.items()},
            "requestBodies": bodies,
            "examples": _examples(),
            "securitySchemes": {"Key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(settings, {**bodies, **paths}),
        },
    }


def _operations(settings: Settings) -> _Json:
    """Return the operation of each path."""
    common = (
        "An image that can't be used has an error in its place; if it is the whole body, the request fails "
        "with this error. Without `model`, the default model answers; without `version` and `label`, its "
        f"default version. Limits: {settings.max_body:,} bytes per body, {settings.max_pixels:,} pixels"
    )
    operations = {
        "/v1/predict": operation(
            "predict",
            "Classify each image.",
            json_content("Predictions"),
            _RECOGNITION,
            description="A model of digits refuses an image without a digit, or with several: `refusal` says "
            f"why, `is_digit` and `probabilities` say what the model saw. {common} per image.",
            parameters=parameters(parsing.PredictQuery),
            requestBody=ref("requestBodies", "PredictPictures"),
        ),
        "/v1/read": operation(
            "read",
            "Read all digits in each image, in lines, by a model of digits.",
            json_content("Readings"),
            (*_RECOGNITION, ReaderMissingError, ReadingNotSupportedError, TooManyDigitsError),
            description="Signs between digits are left out. An image on which nothing looks like a digit has "
            f"an empty reading with a `refusal`. {common} and {settings.max_digits:,} digits per image.",
            parameters=parameters(parsing.ReadQuery),
            requestBody=ref("requestBodies", "ReadPictures"),
        ),
        "/v1/models": operation(
            "listModels",
            "Describe a model: its task, versions and labels.",
            json_content("Models"),
            (*KEYED, *UPSTREAM, errors.UnknownModelError),
            parameters=parameters(parsing.ModelQuery),
        ),
    }
    for feature in features(settings):
        operations |= feature.operations(settings)
    document = {"application/json": {"schema": {"type": "object", "additionalProperties": True}}}
    operations |= {
        "/": operation(
            "index",
            "Index of the endpoints; an HTML page for browsers.",
            json_content("Index") | {"text/html": _TEXT},
        ),
        "/livez": operation("isAlive", "Liveness: the process is running.", json_content("Alive")),
        "/readyz": operation(
            "isReady",
            "Readiness: the gateway can answer predictions.",
            json_content("Ready"),
            (*_ANY, errors.NotReadyError),
        ),
        "/metrics": operation("metrics", "Metrics in Prometheus's text format.", {"text/plain": _TEXT}),
        "/openapi.json": operation("describe", "This OpenAPI document.", document),
    }
    return operations


def operation(
    name: str, summary: str, answer: _Json, kinds: Iterable[type[Exception]] = _ANY, **members: Any
) -> _Json:
    """Return an operation: `answer` has media types, `kinds` the classes of its errors.

    `members` are other members of OpenAPI's operation object.
    """
    success = {"description": "Success.", "headers": _headers(200), "content": answer}
    responses = {"200": success, **_error_responses(kinds)}
    operation = {"operationId": name, "summary": summary, "description": "", "parameters": [_ID_PARAMETER]}
    return {**operation, **members, "responses": responses}


def _error_responses(kinds: Iterable[type[Exception]]) -> _Json:
    """Return the responses by status, each with the codes of the errors that have it."""
    answers = {answer.code: answer for answer in map(errors.problem_kind, kinds)}
    responses = {}
    for status in sorted({answer.status for answer in answers.values()}):
        alike = [answer for answer in answers.values() if answer.status == status]
        code = {"enum": [answer.code for answer in alike]}
        problem = {
            "schema": ref("schemas", "Problem") | {"properties": {"code": code}},
            "example": errors.problem_document(alike[0], "3f2b8c1e9d4a4f0c8a57e6b1d2c3f405"),
        }
        responses[str(status)] = {
            "description": "\n".join(f"- `{answer.code}`: {answer.detail}" for answer in alike),
            "headers": _headers(status),
            "content": {"application/problem+json": problem},
        }
    return responses


def _headers(status: int) -> _Json:
    names = [_REQUEST_ID, *{401: ["WWW-Authenticate"], 405: ["Allow"]}.get(status, [])]
    names += ["Retry-After"] if status in errors.RETRY_AFTER_STATUSES else []
    return {name: ref("headers", name) for name in names}


def parameters(query: Any) -> list[_Json]:
    """Return the header of the request's ID, and the parameters of a query."""
    listed = [_ID_PARAMETER]
    for name, option in described(query).items():
        if option.schema.get("type") == "object":
            # Bodies only: a form is too long for a URL.
            continue
        schema = ref("schemas", "ModelName") if name == "model" else _option_schema(option, in_text=True)
        if option.default:
            # Bodies state no defaults: generated clients would send them in addition to the query's options.
            schema["default"] = option.default
        style = {"style": "form", "explode": option.repeats} if schema.get("type") == "array" else {}
        parameter = {"name": name, "in": "query", "description": option.description, "schema": schema}
        listed.append(parameter | style)
    return listed


def _option_schema(option: Option, in_text: bool) -> _Json:
    """Return the schema of an option, in a query or a form, or in JSON."""
    return {**((option.text_schema if in_text else None) or option.schema)}


def _examples() -> _Json:
    """Return examples of JSON bodies."""
    one = np.zeros((28, 28), np.uint8)
    one[4:24, 13:15] = 255
    file = base64.b64encode(images.to_png(one)).decode()
    return {
        "file": {"summary": "An image file", "value": {"images": [file]}},
        "pixels": {"summary": "Pixels", "value": {"instances": [(one // 255).ravel().tolist()]}},
    }


def _pictures(settings: Settings, prefix: str) -> _Json:
    """Return the media types of a request's pictures and options."""
    file_or_array = (
        "An image file: PNG, JPEG, GIF, BMP without runs, WebP, TIFF in strips, binary PNM, or HEIC if the "
        "service has it. Or a "
        f".npy file: uint8 [n, *shape] with n ≤ {settings.max_images} and the shape in the task card; for "
        "digits [n, 28, 28], light ink on dark. The first bytes identify the format; the media types "
        "`image/*` and `application/x-npy` are accepted as well."
    )
    pictures = json_content(f"{prefix}Images", f"{prefix}Instances")
    pictures["application/json"]["examples"] = {name: ref("examples", name) for name in ("file", "pixels")}
    return {
        **pictures,
        "multipart/form-data": {"schema": ref("schemas", f"{prefix}Form")},
        # Client generators support neither media ranges nor other types of binary bodies.
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary", "description": file_or_array}
        },
    }


class _Generator(GenerateJsonSchema):
    """Generator without a title for each field, which would repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dataclass_schema(self, schema: Any) -> _Json:
        """Return the JSON object of a dataclass, which leaves out None and `optional` members."""
        document = super().dataclass_schema(schema)
        properties, document["properties"], document["required"] = document["properties"], {}, []
        for each in results.members(schema["cls"]):
            member = document["properties"][each.name] = properties[each.name]
            null = each.metadata.get("null")
            is_none = member.pop("default", MISSING) is None
            if null is True or not (is_none or each.metadata.get("optional")):
                document["required"].append(each.name)
            elif is_none and not null:
                member |= member.pop("anyOf")[0]
        return document


def _schemas(settings: Settings, operations: _Json) -> _Json:
    """Return the schemas to which the operations refer, directly or through other schemas."""
    named = {*re.findall(r"#/components/schemas/(\w+)", str(operations))} - {"ModelName"}
    sources = [vars(schemas), *(feature.schemas for feature in features(settings)), vars(results)]
    kinds = [source.get(name) for name in sorted(named) for source in sources]
    more = (schemas.PredictionMore, schemas.ModelsMore, schemas.Images, schemas.Instances, schemas.Form)
    kinds = [*filter(None, kinds), *more]
    # Types without a configuration of their own take that of the tuple.
    config = ConfigDict(use_attribute_docstrings=True)
    adapter: TypeAdapter[Any] = TypeAdapter(tuple[tuple(kinds)], config=config)  # type: ignore[arg-type, misc]
    reference = "#/components/schemas/{model}"
    generated = adapter.json_schema(mode="serialization", ref_template=reference, schema_generator=_Generator)
    definitions: _Json = generated["$defs"]
    for name in ("Prediction", "Models"):
        whole, more = definitions[name], definitions.pop(f"{name}More")
        for member, schema in more["properties"].items():
            whole["properties"].setdefault(member, {}).update(schema)
        whole["required"] += {*more.get("required", ())} - {*whole["required"]}
    # `?top=` replaces them.
    definitions["Prediction"]["required"].remove("probabilities")
    for name, field in (("Images", "images"), ("Instances", "instances"), ("Form", "image")):
        definitions[name]["properties"][field]["maxItems"] = settings.max_images
        alone = definitions.pop(name)
        for prefix, query in _BODIES.items():
            options = {
                option: {"description": each.description, **_option_schema(each, in_text=name == "Form")}
                for option, each in described(query).items()
                if option != "model"
            }
            definitions[prefix + name] = {
                **alone,
                "title": prefix + name,
                "properties": alone["properties"] | options,
                "additionalProperties": False,
            }
    names = list(settings.models)
    takes_any = "*" in settings.model_names
    definitions["ModelName"] = {
        "title": "ModelName",
        "type": "string",
        "description": "A model of the service.",
        **({"pattern": f"^{NAME.pattern}$", "examples": names} if takes_any else {"enum": names}),
    }
    return definitions


def json_content(*names: str) -> _Json:
    """Return the media type JSON with one of these schemas."""
    kinds = [ref("schemas", name) for name in names]
    return {"application/json": {"schema": {"oneOf": kinds} if kinds[1:] else kinds[0]}}


def ref(kind: str, name: str) -> _Json:
    return {"$ref": f"#/components/{kind}/{name}"}
