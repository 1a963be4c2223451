"""The API's description for programs: OpenAPI 3.1."""

from importlib.metadata import version
from typing import Any

import orjson
from flask import Blueprint, Response

from digit_serving.gateway.settings import Settings

_Schema = dict[str, Any]

_PROBABILITY: _Schema = {"type": "number", "minimum": 0, "maximum": 1}
_STRING: _Schema = {"type": "string"}


def blueprint(settings: Settings) -> Blueprint:
    """The route of the description."""
    content = orjson.dumps(describe(settings))
    documents = Blueprint("openapi", __name__)

    @documents.get("/openapi.json")
    def openapi() -> Response:
        return Response(content, content_type="application/json")

    return documents


def describe(settings: Settings) -> _Schema:
    """The whole description, with the limits that the settings set."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Digits",
            "version": version("digit-serving"),
            "description": "Reads the handwritten digit on an image.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/": {"get": _index()},
            "/v1/predict": {"post": _predict(settings)},
            "/v1/models": {"get": _get("listModels", "The model's versions and labels.", "Models", 503, 504)},
            "/livez": {"get": _get("isAlive", "Whether the process lives.", "Status")},
            "/readyz": {"get": _get("isReady", "Whether it can answer now.", "Status", 503)},
            "/metrics": {"get": _metrics()},
        },
        "components": {"schemas": _schemas(settings)},
    }


def _predict(settings: Settings) -> _Schema:
    return {
        "operationId": "predict",
        "summary": "What digit each image shows.",
        "parameters": [
            _query("version", "Ask this version of the model.", {"type": "integer", "minimum": 0}),
            _query("label", "Ask the version that carries this label; not together with version.", _STRING),
            _query(
                "include", "Have each prediction carry the image that the network saw.", {"const": "image"}
            ),
        ],
        "requestBody": {"required": True, "content": _bodies(settings)},
        "responses": _responses("Predictions", 400, 404, 413, 415, 422, 429, 502, 503, 504),
    }


def _bodies(settings: Settings) -> _Schema:
    most = settings.max_images
    file = {"type": "string", "contentMediaType": "image/*"}
    return {
        "image/*": {"schema": {"description": "One image file of any common format."}},
        "multipart/form-data": {"schema": _object({"image": _array(file, minItems=1, maxItems=most)})},
        "application/json": {"schema": {"oneOf": [_ref("Images"), _ref("Instances")]}},
        "application/x-npy": {
            "schema": {"description": f"NumPy's uint8 [n, 28, 28], n ≤ {most}, light ink on dark."}
        },
    }


def _schemas(settings: Settings) -> _Schema:
    most = settings.max_images
    base64 = {"type": "string", "contentEncoding": "base64"}
    pixels = _array(_PROBABILITY, minItems=784, maxItems=784)
    prediction = {
        "digit": {"type": "integer", "minimum": 0, "maximum": 9},
        "confidence": _PROBABILITY,
        "probabilities": _array(_PROBABILITY, minItems=10, maxItems=10),
    }
    seen = base64 | {
        "description": "PNG, 28×28, light ink on dark; with ?include=image.",
        "contentMediaType": "image/png",
    }
    number = {"type": "integer"}
    return {
        "Index": _object(
            {
                "name": _STRING,
                "version": _STRING,
                "links": {"type": "object", "additionalProperties": _STRING},
            }
        ),
        "Images": _object({"images": _array(base64, minItems=1, maxItems=most)}),
        "Instances": _object({"instances": _array(pixels, minItems=1, maxItems=most)}),
        "Prediction": _object(prediction | {"image": seen}, required=list(prediction)),
        "Predictions": _object(
            {
                "model": _object({"name": _STRING, "version": number}),
                "predictions": _array(_ref("Prediction")),
                "request_id": _STRING,
            }
        ),
        "Models": _object(
            {
                "name": _STRING,
                "versions": _array(_object({"version": number, "state": _STRING})),
                "labels": {"type": "object", "additionalProperties": number},
                "request_id": _STRING,
            }
        ),
        "Status": _object({"status": _STRING, "versions": _array(number)}, required=["status"]),
        "Problem": _object(
            {
                "type": _STRING,
                "title": _STRING,
                "status": number,
                "code": _STRING,
                "detail": _STRING,
                "request_id": _STRING,
                "index": number | {"description": "Which image of the request is meant, from 0."},
            },
            required=["type", "title", "status", "code", "detail", "request_id"],
        ),
    }


def _get(name: str, summary: str, schema: str, *errors: int) -> _Schema:
    return {"operationId": name, "summary": summary, "responses": _responses(schema, *errors)}


def _index() -> _Schema:
    described = _get("index", "Where everything is; a browser gets the page to draw on.", "Index")
    described["responses"]["200"]["content"]["text/html"] = {"schema": _STRING}
    return described


def _metrics() -> _Schema:
    content = {"text/plain": {"schema": _STRING}}
    responses = {"200": {"description": "Prometheus's text format.", "content": content}}
    return {"operationId": "metrics", "summary": "What was counted.", "responses": responses}


def _responses(schema: str, *errors: int) -> _Schema:
    answers = {"200": {"description": schema, "content": {"application/json": {"schema": _ref(schema)}}}}
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    for status in errors:
        answers[str(status)] = {"description": "A problem.", "content": problem}
    return answers


def _query(name: str, description: str, schema: _Schema) -> _Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _object(properties: _Schema, required: list[str] | None = None) -> _Schema:
    return {"type": "object", "properties": properties, "required": required or list(properties)}


def _array(items: _Schema, **limits: int) -> _Schema:
    return {"type": "array", "items": items, **limits}


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}
