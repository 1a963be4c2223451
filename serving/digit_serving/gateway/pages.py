"""Pages: the demo page, those of features, and Swagger UI for the API."""

import gzip
import hashlib
from collections.abc import Mapping
from functools import cache, partial
from html import escape
from importlib.metadata import metadata, version
from importlib.resources import files
from pathlib import Path

import orjson
from flask import Blueprint, Response, abort, request
from werkzeug.http import generate_etag

from digit_serving.gateway.door import features
from digit_serving.gateway.schemas import Index
from digit_serving.gateway.settings import Settings

_LINKS = {
    "predict": "/v1/predict",
    "read": "/v1/read",
    "models": "/v1/models",
    "openapi": "/openapi.json",
    "docs": "/docs",
    "livez": "/livez",
    "readyz": "/readyz",
    "metrics": "/metrics",
}
"""Endpoints in the JSON index at /."""

# Media types by suffix. The mimetypes module would read the machine's own table.
_MIMETYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
_COMPRESSIBLE = frozenset(_MIMETYPES.values()) - {"image/jpeg", "image/png"}
_SECURITY_HEADERS = {
    # Pages load their own files only; images are drawn by the page (data:) or referenced by its stylesheet.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
_STATIC = Path(__file__).with_name("static")
_SWAGGER = Path(__file__).with_name("swagger")
_SCRIPTS = ("inside.js", "main.js", "share.js", "why.js")
"""Scripts that the page names, or imports on demand; the others are modules that it imports at once."""
_SWAGGER_UI = Path(str(files("flask_swagger_ui"))) / "dist"
_SWAGGER_UI_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
_etag = cache(generate_etag)
_compress = cache(partial(gzip.compress, mtime=0))


def pages(settings: Settings) -> Blueprint:
    """Return the demo page at /, pages of features, and Swagger UI at /docs, whose files stay in memory."""
    blueprint = Blueprint("pages", __name__)
    links = dict(_LINKS)
    index: Index = {"name": "Digits", "version": version("digits"), "links": links}
    own_files, docs_files = _read(_STATIC), _read(_SWAGGER, _SWAGGER_UI, *_SWAGGER_UI_FILES)
    page_files = own_files.copy()
    html: dict[str, Path] = {}
    for feature in features(settings):
        links |= feature.links
        html |= feature.pages(settings)
    for file in html.values():
        page_files |= _read(file.parent)
    digest = hashlib.sha256(b"".join(page_files[name] for name in sorted(page_files))).hexdigest()[:12]

    def versioned(name: str) -> bytes:
        """Return a page whose links have the digest of all files, so that browsers may cache these."""
        return page_files[name].replace(b'"static/', b'"static/%s/' % digest.encode())

    # Preload the modules that main.js imports: browsers would find them only once it has arrived.
    modules = sorted(name for name in own_files if name.endswith(".js") and name not in _SCRIPTS)
    preload = ", ".join(f"<static/{digest}/{name}>; rel=modulepreload" for name in modules)
    page_html = versioned("index.html").replace(b"<!-- links -->", _links(html))

    @blueprint.get("/")
    def page() -> Response:
        preferred = request.accept_mimetypes.best_match(["text/html", "application/json"])
        if preferred == "application/json":
            response = _cacheable(orjson.dumps(index), "application/json")
        else:
            response = _cacheable(page_html, _MIMETYPES[".html"])
            response.headers["Link"] = preload
        response.vary.add("Accept")
        return response

    @blueprint.get("/static/<name>")
    @blueprint.get("/static/<version>/<name>")
    def page_file(name: str, version: str | None = None) -> Response:
        # During an update, the page may come from another worker than its files: don't cache these then.
        return _file(page_files, name, is_immutable=version == digest)

    for path, file in html.items():
        blueprint.add_url_rule(
            path, file.stem, partial(_cacheable, versioned(file.name), _MIMETYPES[".html"])
        )

    @blueprint.get("/docs")
    def docs() -> Response:
        return _cacheable(docs_files["index.html"], _MIMETYPES[".html"])

    @blueprint.get("/docs/<name>")
    def docs_file(name: str) -> Response:
        return _file(docs_files, name)

    @blueprint.after_request
    def add_security_headers(response: Response) -> Response:
        response.headers.update(_SECURITY_HEADERS)
        return response

    return blueprint


def _links(html: Mapping[str, Path]) -> bytes:
    """Return links to the pages of features, by their titles, and to `[project.urls]` of pyproject.toml."""
    urls = [text.split(", ", 1) for text in metadata("digits").get_all("Project-URL") or ()]
    for path, file in html.items():
        _, _, rest = file.read_text().partition("<title>")
        urls.append([rest.partition("</title>")[0], path.removeprefix("/")])
    links = (f'<a href="{escape(url)}">{escape(name)}</a>' for name, url in urls)
    return " ".join(links).encode()


@cache
def _read(folder: Path, library: Path | None = None, *names: str) -> dict[str, bytes]:
    """Return the contents of a folder's files, and of the named files of a library, by name."""
    paths = [*folder.iterdir(), *(library / name for name in names if library)]
    return {path.name: path.read_bytes() for path in paths}


def _file(contents: dict[str, bytes], name: str, *, is_immutable: bool = False) -> Response:
    if name not in contents or name.endswith(".html"):
        abort(404)
    return _cacheable(contents[name], _MIMETYPES[Path(name).suffix], is_immutable=is_immutable)


def _cacheable(content: bytes, mimetype: str, *, is_immutable: bool = False) -> Response:
    """Return the content with an ETag, or 304 Not Modified if the browser's copy is current.

    Browsers keep an immutable file for a year without asking again.
    """
    response = Response(mimetype=mimetype)
    if mimetype in _COMPRESSIBLE:
        response.vary.add("Accept-Encoding")
        if request.accept_encodings["gzip"]:
            content, response.content_encoding = _compress(content), "gzip"
    response.data = content
    if is_immutable:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    else:
        response.cache_control.no_cache = True
    response.set_etag(_etag(content))
    response.make_conditional(request)
    return response
