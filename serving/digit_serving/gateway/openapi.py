"""OpenAPI 3.1 document of the HTTP API: openapi.json, completed by the package's version and the settings."""

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from flask import Blueprint, Response

from digit_serving.gateway.settings import Settings

_FILE = Path(__file__).with_name("openapi.json")
_IMAGE_LISTS = (("Images", "images"), ("Instances", "instances"), ("Form", "image"))
"""Schemas of request bodies, each with its property that lists the images."""


def blueprint(settings: Settings) -> Blueprint:
    """Return the route /openapi.json."""
    documents = Blueprint("openapi", __name__)

    # Lazy, because it would delay every start, and few callers ask for the document.
    @cache
    def content() -> bytes:
        return orjson.dumps(describe(settings))

    @documents.get("/openapi.json")
    def openapi() -> Response:
        return Response(content(), content_type="application/json")

    return documents


def describe(settings: Settings) -> dict[str, Any]:
    """Return the document with the package's version and the settings' models, limits and security."""
    document: dict[str, Any] = orjson.loads(_FILE.read_bytes())
    document["info"]["version"] = version("digit-serving")
    predict, read = (document["paths"][path]["post"] for path in ("/v1/predict", "/v1/read"))
    array = document["components"]["requestBodies"]["Pictures"]["content"]["application/x-npy"]["schema"]
    limits = settings.model_dump(include={"max_body", "max_digits", "max_images", "max_pixels"})
    for node in (predict, read, array):
        node["description"] = node["description"].format(**limits)
    for name, field in _IMAGE_LISTS:
        document["components"]["schemas"][name]["properties"][field]["maxItems"] = settings.max_images
    document["components"]["schemas"]["ModelName"]["enum"] = list(settings.models)
    if not settings.offers_labelling:
        _remove(document, "Labelling", "/v1/feedback/unlabelled", "/v1/feedback/labels")
    if not settings.feedback:
        _remove(document, "Feedback", "/v1/feedback")
    if settings.api_keys:
        for path, operations in document["paths"].items():
            if path.startswith("/v1/"):
                for operation in operations.values():
                    operation["security"] = [{"Key": []}]
    return document


def _remove(document: dict[str, Any], prefix: str, *paths: str) -> None:
    """Remove paths, and the components that they alone use: their names begin with the prefix."""
    for path in paths:
        del document["paths"][path]
    for kind, components in document["components"].items():
        document["components"][kind] = {
            name: component for name, component in components.items() if not name.startswith(prefix)
        }
