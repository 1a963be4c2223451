"""What is at `/`: for people the page on which they draw a digit, for programs an index of the API."""

from importlib.metadata import version
from pathlib import Path

import orjson
from flask import Blueprint, Response, abort, request

from digit_serving.gateway import browsers

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


def blueprint() -> Blueprint:
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

    browsers.guard(page)
    return page


def _answer(content: bytes, mimetype: str) -> Response:
    """The content, or that it is still what the browser has."""
    response = Response(content, mimetype=mimetype)
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response
