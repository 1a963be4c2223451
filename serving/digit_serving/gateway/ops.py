"""Whether the gateway lives, whether it can answer, and what it has counted."""

from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import orjson
from flask import Blueprint, Response, abort, request, send_from_directory

from digit_client import DigitError
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.model_server import AsyncModelServer
from digit_serving.gateway import security_headers
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.errors import NotReadyError
from digit_serving.gateway.metrics import CONTENT_TYPE, Metrics
from digit_serving.gateway.routing import default_model
from digit_serving.gateway.schemas import Alive, Ready
from digit_serving.gateway.settings import Settings

# Probes come every few seconds and give up after one.
_PROBE_SECONDS = 0.9


def blueprint(settings: Settings, model_server: AsyncModelServer, metrics: Metrics) -> Blueprint:
    """The routes for whoever runs this."""
    health = Blueprint("health", __name__)

    @health.get("/livez")
    def livez() -> Response:
        document: Alive = {"status": "alive"}
        return Response(orjson.dumps(document), content_type="application/json")

    @health.get("/readyz")
    def readyz() -> Response:
        # A version that has ended is still listed, so the list alone says nothing.
        try:
            versions = await_(model_server.versions(ModelRef(settings.model_name), timeout=_PROBE_SECONDS))
        except DigitError as error:
            raise NotReadyError("The model server does not answer.") from error
        available = [status.version for status in versions if status.is_available]
        if not available:
            raise NotReadyError("No version of the model is available.")
        if settings.default_label:
            _check_default(settings, model_server)
        document: Ready = {"status": "ready", "versions": available}
        return Response(orjson.dumps(document), content_type="application/json")

    @health.get("/metrics")
    def text() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE)

    return health


def _check_default(settings: Settings, model_server: AsyncModelServer) -> None:
    try:
        await_(model_server.resolve(default_model(settings), timeout=_PROBE_SECONDS))
    except DigitError as error:
        raise NotReadyError(f"No version carries the label {settings.default_label}.") from error


_OURS = Path(__file__).with_name("swagger")
_THEIRS = Path(str(files("flask_swagger_ui"))) / "dist"
_FILES = {
    "start.js": _OURS,
    "swagger-ui-bundle.js": _THEIRS,
    "swagger-ui.css": _THEIRS,
    "favicon-32x32.png": _THEIRS,
}


def blueprint_docs() -> Blueprint:
    """The routes of the page and of its files."""
    docs = Blueprint("docs", __name__, url_prefix="/docs")

    @docs.get("")
    def page() -> Response:
        return send_from_directory(_OURS, "index.html")

    @docs.get("/<name>")
    def file(name: str) -> Response:
        return send_from_directory(_FILES.get(name) or abort(404), name)

    security_headers.guard(docs)
    return docs


LINKS = {
    "predict": "/v1/predict",
    "models": "/v1/models",
    "openapi": "/openapi.json",
    "docs": "/docs",
    "livez": "/livez",
    "readyz": "/readyz",
    "metrics": "/metrics",
}

# Told here, since what a machine makes of an ending is its own affair.
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}


def blueprint_page() -> Blueprint:
    """The routes of the page and of its files, which are read here."""
    page = Blueprint("page", __name__)
    index = orjson.dumps({"name": "Digits", "version": version("digit-serving"), "links": LINKS})
    files = {path.name: path.read_bytes() for path in Path(__file__).with_name("static").iterdir()}
    html = files.pop("index.html")

    @page.get("/")
    def root() -> Response:
        wanted = request.accept_mimetypes.best_match(["text/html", "application/json"])
        is_program = wanted == "application/json"
        response = _answer(index, "application/json") if is_program else _answer(html, _TYPES[".html"])
        response.vary.add("Accept")
        return response

    @page.get("/static/<name>")
    def static(name: str) -> Response:
        if name not in files:
            abort(404)
        return _answer(files[name], _TYPES[Path(name).suffix])

    security_headers.guard(page)
    return page


def _answer(content: bytes, mimetype: str) -> Response:
    """The content, or that it is still what the browser has."""
    response = Response(content, mimetype=mimetype)
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response
