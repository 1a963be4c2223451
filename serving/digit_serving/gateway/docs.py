"""What is at `/docs`: Swagger UI, which shows the API's description and tries it, from here alone."""

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, abort, send_from_directory

_OURS = Path(__file__).with_name("swagger")
_THEIRS = Path(str(files("flask_swagger_ui"))) / "dist"
_FILES = {
    "start.js": _OURS,
    "swagger-ui-bundle.js": _THEIRS,
    "swagger-ui.css": _THEIRS,
    "favicon-32x32.png": _THEIRS,
}

# Swagger UI's stylesheet holds its pictures.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
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

    @docs.after_request
    def guard(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    return docs
