"""API routes under /v1: predictions, readings, and the model's versions and labels."""

import base64
from collections.abc import Iterable, Mapping

import orjson
from flask import Blueprint, Response, g, request

from digit_client import Digit, Line, ModelNotFoundError, Prediction, Reading, UnavailableError, images
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.model_server import AsyncModelServer
from digit_serving.gateway import auth, rate_limit, schemas, security_headers
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import InvalidSelectionError
from digit_serving.gateway.image_processing import ImageProcessor, to_image
from digit_serving.gateway.recognition import Recognizer
from digit_serving.gateway.request_parsing import RequestParser
from digit_serving.gateway.routing import Router
from digit_serving.gateway.scheduling import Scheduler
from digit_serving.gateway.settings import Settings

MAX_VERSION = 2**63 - 1
"""Largest version number of TensorFlow Serving."""


def blueprint(settings: Settings, model_server: AsyncModelServer, router: Router) -> Blueprint:
    """Return the blueprint of /v1."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    scheduler = Scheduler(settings)
    parser = RequestParser(settings, scheduler)
    recognizer = Recognizer(settings, ImageProcessor(settings, scheduler), router)

    @api.post("/predict")
    def predict() -> Response:
        requested, includes_image = _parse_query(request.args, settings.model_name)
        context: RequestContext = g.context
        pictures = parser.parse(request, context)
        predictions, batch = recognizer.predict(pictures, requested, context)
        context.predictions = predictions
        documents = [_prediction(prediction) for prediction in predictions]
        if includes_image:
            _add_images(documents, map(to_image, batch))
        content: schemas.Predictions = {
            "model": {"name": settings.model_name, "version": predictions[0].model_version},
            "predictions": documents,
            "request_id": context.request_id,
        }
        return _json_response(content)

    @api.post("/read")
    def read() -> Response:
        requested, includes_image = _parse_query(request.args, settings.model_name)
        context: RequestContext = g.context
        pictures = parser.parse(request, context)
        readings, documents = [], []
        for reading, glyphs in recognizer.read(pictures, requested, context):
            readings.append(reading)
            document = _reading(reading)
            if includes_image:
                digits = (digit for line in document["lines"] for digit in line["digits"])
                _add_images(digits, glyphs)
            documents.append(document)
        context.readings = readings
        content: schemas.Readings = {
            "model": {"name": settings.model_name, "version": readings[0].model_version},
            "readings": documents,
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


def _parse_query(query: Mapping[str, str], model_name: str) -> tuple[ModelRef | None, bool]:
    """Return the model that the request names, if it does, and True if the answer includes images."""
    return _requested_model(query, model_name), _includes_image(query)


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


def _prediction(prediction: Prediction) -> schemas.Prediction:
    document: schemas.Prediction = {
        "digit": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
    }
    if prediction.is_digit is not None:
        document["is_digit"] = prediction.is_digit
    return document


def _reading(reading: Reading) -> schemas.Reading:
    return {"text": reading.text, "lines": [_line(line) for line in reading.lines]}


def _line(line: Line) -> schemas.Line:
    return {"text": line.text, "box": line.box, "digits": [_digit(digit) for digit in line.digits]}


def _digit(digit: Digit) -> schemas.Digit:
    return {
        "digit": digit.digit,
        "confidence": digit.confidence,
        "probabilities": digit.probabilities,
        "box": digit.box,
    }


def _add_images(
    documents: Iterable[schemas.Prediction] | Iterable[schemas.Digit], inputs: Iterable[images.Pixels]
) -> None:
    """Add the model's input, uint8 [28, 28], to each digit, as a PNG file in base64."""
    for document, pixels in zip(documents, inputs, strict=True):
        document["image"] = base64.b64encode(images.to_png(pixels)).decode()


def _json_response(document: Mapping[str, object]) -> Response:
    return Response(orjson.dumps(document), content_type="application/json")
