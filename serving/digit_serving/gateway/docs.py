"""What is at `/docs`: Swagger UI, which shows the API's description and tries it, from here alone."""

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, abort, send_from_directory

from digit_serving.gateway import browsers

_OURS = Path(__file__).with_name("swagger")
_THEIRS = Path(str(files("flask_swagger_ui"))) / "dist"
_FILES = {
    "start.js": _OURS,
    "swagger-ui-bundle.js": _THEIRS,
    "swagger-ui.css": _THEIRS,
    "favicon-32x32.png": _THEIRS,
}


def blueprint() -> Blueprint:
    """The routes of the page and of its files."""
    docs = Blueprint("docs", __name__, url_prefix="/docs")

    @docs.get("")
    def page() -> Response:
        return send_from_directory(_OURS, "index.html")

    @docs.get("/<name>")
    def file(name: str) -> Response:
        return send_from_directory(_FILES.get(name) or abort(404), name)

    browsers.guard(docs)
    return docs
