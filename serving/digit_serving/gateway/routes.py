"""The API: what digit an image shows, and which models there are."""

import base64
from collections.abc import Iterator, Mapping

import numpy as np
import orjson
from flask import Blueprint, Response, g, request

from digit_client import ModelNotFoundError, Prediction, UnavailableError
from digit_client.images import to_png, to_uint8
from digit_client.tfserving.codec import Batch, ModelRef
from digit_client.tfserving.model_server import AsyncModelServer
from digit_serving.gateway import auth, request_parsing, schemas, security_headers
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import InvalidSelectionError
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings

MAX_VERSION = 2**63 - 1
"""The largest version number that TensorFlow Serving knows."""


def blueprint(settings: Settings, model_server: AsyncModelServer, router: Router) -> Blueprint:
    """The routes under /v1."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    reader = request_parsing.RequestParser(settings)

    @api.post("/predict")
    def predict() -> Response:
        query = request.args
        named = _named(query, settings.model_name)
        includes_image = _includes_image(query)
        context: RequestContext = g.context
        batch = reader.read(request, context)
        context.predictions = predictions = router.predict(batch, named, context)
        documents = [_document(prediction) for prediction in predictions]
        if includes_image:
            for document, image in zip(documents, _images(batch), strict=True):
                document["image"] = image
        answer: schemas.Predictions = {
            "model": {"name": settings.model_name, "version": predictions[0].model_version},
            "predictions": documents,
            "request_id": context.request_id,
        }
        return _answer(answer)

    @api.get("/models")
    def models() -> Response:
        try:
            model = ModelRef(settings.model_name)
            versions = await_(model_server.versions(model, timeout=settings.deadline))
        except ModelNotFoundError as error:
            raise UnavailableError(error.message) from error
        document: schemas.Models = {
            "name": settings.model_name,
            "versions": [{"version": status.version, "state": status.state} for status in versions],
            "labels": _labels(settings, model_server),
            "request_id": g.context.request_id,
        }
        return _answer(document)

    auth.guard(api, settings)
    security_headers.admit(api, settings.cors_origins)
    return api


def _named(query: Mapping[str, str], name: str) -> ModelRef | None:
    version, label = query.get("version"), query.get("label")
    if version is not None and label is not None:
        raise InvalidSelectionError("Name a version or a label, not both.")
    if version is None:
        return ModelRef(name, label=label) if label else None
    return ModelRef(name, version=_number(version))


def _number(version: str) -> int:
    # Python refuses to read a number of thousands of digits.
    if version.isascii() and version.isdigit() and len(version) <= len(str(MAX_VERSION)):
        number = int(version)
        if number <= MAX_VERSION:
            return number
    raise InvalidSelectionError("The version is to be a whole number.")


def _includes_image(query: Mapping[str, str]) -> bool:
    if "include" not in query:
        return False
    if query["include"] != "image":
        raise InvalidSelectionError("An answer can include this only: image.")
    return True


def _images(batch: Batch) -> Iterator[str]:
    """What the model sees, as PNG files in base64."""
    most = 255 if batch.dtype == np.uint8 else 1
    pixels = to_uint8(batch.astype(np.float32).reshape(-1, 28, 28) * (255 / most))
    return (base64.b64encode(to_png(image)).decode() for image in pixels)


def _labels(settings: Settings, model_server: AsyncModelServer) -> dict[str, int]:
    """Which version each label points to. TensorFlow Serving lists no labels, so each is asked for."""
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


def _answer(document: Mapping[str, object]) -> Response:
    return Response(orjson.dumps(document), content_type="application/json")
