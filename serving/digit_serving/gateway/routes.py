"""API routes under /v1: predictions, and the model's versions and labels."""

import base64
from collections.abc import Iterator, Mapping

import numpy as np
import orjson
from flask import Blueprint, Response, g, request

from digit_client import ModelNotFoundError, Prediction, UnavailableError
from digit_client.images import to_png, to_uint8
from digit_client.tfserving.codec import Batch, ModelRef
from digit_client.tfserving.model_server import AsyncModelServer
from digit_serving.gateway import auth, rate_limit, request_parsing, schemas, security_headers
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import InvalidSelectionError
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings

MAX_VERSION = 2**63 - 1
"""Largest version number of TensorFlow Serving."""


def blueprint(settings: Settings, model_server: AsyncModelServer, router: Router) -> Blueprint:
    """Return the blueprint of /v1."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    parser = request_parsing.RequestParser(settings)

    @api.post("/predict")
    def predict() -> Response:
        query = request.args
        requested = _requested_model(query, settings.model_name)
        includes_image = _includes_image(query)
        context: RequestContext = g.context
        batch = parser.parse(request, context)
        context.predictions = predictions = router.predict(batch, requested, context)
        documents = [_document(prediction) for prediction in predictions]
        if includes_image:
            for document, image in zip(documents, _encode_images(batch), strict=True):
                document["image"] = image
        content: schemas.Predictions = {
            "model": {"name": settings.model_name, "version": predictions[0].model_version},
            "predictions": documents,
            "request_id": context.request_id,
        }
        return _json_response(content)

    @api.get("/models")
    def models() -> Response:
        try:
            model = ModelRef(settings.model_name)
            versions = await_(model_server.versions(model, timeout=settings.deadline))
        except ModelNotFoundError as error:
            raise UnavailableError(error.message) from error
        content: schemas.Models = {
            "name": settings.model_name,
            "versions": [{"version": status.version, "state": status.state} for status in versions],
            "labels": _resolve_labels(settings, model_server),
            "request_id": g.context.request_id,
        }
        return _json_response(content)

    if settings.api_keys:
        auth.require_api_key(api, settings.api_keys)
    if settings.rate_limit:
        rate_limit.limit_rate(api, settings.rate_limit, settings.rate_limit_store)
    security_headers.enable_cors(api, settings.cors_origins)
    return api


def _requested_model(query: Mapping[str, str], name: str) -> ModelRef | None:
    version, label = query.get("version"), query.get("label")
    if version is not None and label is not None:
        raise InvalidSelectionError("Parameters `version` and `label` exclude each other.")
    if version is None:
        return ModelRef(name, label=label) if label else None
    return ModelRef(name, version=_parse_version(version))


def _parse_version(version: str) -> int:
    # Check the length first: int() raises ValueError for thousands of digits.
    if version.isascii() and version.isdigit() and len(version) <= len(str(MAX_VERSION)):
        number = int(version)
        if number <= MAX_VERSION:
            return number
    raise InvalidSelectionError(f"Parameter `version` must be an integer from 0 to {MAX_VERSION}.")


def _includes_image(query: Mapping[str, str]) -> bool:
    if "include" not in query:
        return False
    if query["include"] != "image":
        raise InvalidSelectionError("Unsupported value of `include`; supported: image.")
    return True


def _encode_images(batch: Batch) -> Iterator[str]:
    """Yield the model's input images as PNG files in base64."""
    scale = 1 if batch.dtype == np.uint8 else 255
    pixels = to_uint8(batch.astype(np.float32).reshape(-1, 28, 28) * scale)
    return (base64.b64encode(to_png(image)).decode() for image in pixels)


def _resolve_labels(settings: Settings, model_server: AsyncModelServer) -> dict[str, int]:
    """Return the version of each label that has one. TensorFlow Serving has no call that lists labels."""
    labels = {}
    for label in settings.labels:
        model = ModelRef(settings.model_name, label=label)
        try:
            labels[label] = await_(model_server.resolve(model, timeout=settings.deadline))
        except ModelNotFoundError:
            continue
    return labels


def _document(prediction: Prediction) -> schemas.Prediction:
    return {
        "digit": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
    }


def _json_response(document: Mapping[str, object]) -> Response:
    return Response(orjson.dumps(document), content_type="application/json")
