"""Operational endpoints: probes, metrics, the demo page, and Swagger UI for the API."""

import asyncio
import gzip
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from html import escape
from importlib.metadata import metadata, version
from importlib.resources import files
from pathlib import Path

import orjson
from flask import Blueprint, Response, abort, request
from werkzeug.http import generate_etag

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import ArtifactError
from digit_core.errors import DigitError, ModelNotFoundError
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway import tls
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.door import contained, features
from digit_serving.gateway.errors import NotReadyError
from digit_serving.gateway.observers.metrics import CONTENT_TYPE
from digit_serving.gateway.request import json_response
from digit_serving.gateway.schemas import Alive, Index, Ready
from digit_serving.gateway.services import Services
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import default_version, describe_missing

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

_PROBE_TIMEOUT_SECONDS = 0.9
"""Below one second, the default timeout of Kubernetes's probes."""
_KEPT_SECONDS = 1.0
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


def probes(services: Services) -> Blueprint:
    """Return the routes /livez, /readyz and /metrics.

    The default model alone decides on readiness: a pod that has lost one of several models still answers for
    the others, and Kubernetes would withdraw it from all of them. A pod that has lost another model or a
    store, or whose certificate has expired, is ready as well, with a warning.
    """
    blueprint = Blueprint("probes", __name__)
    settings, model_server = services.settings, services.model_server
    name = settings.model_name
    model_warnings = ModelWarnings(settings, model_server)
    certificate = None
    if settings.tls_certificate:
        certificate = tls.server_certificate(settings.tls_certificate, settings.tls_key)
        about = "Unix time at which the certificate of DIGITS_TLS_CERTIFICATE ends."
        expiry = services.metrics.gauge("tls_certificate_expiry_timestamp_seconds", about)

    @blueprint.get("/livez")
    def livez() -> Response:
        document: Alive = {"status": "alive"}
        return json_response(document)

    @blueprint.get("/readyz")
    def readyz() -> Response:
        default = default_version(settings, name)
        missing = f"The model server has no model {name}."
        try:
            deadline = time.monotonic() + _PROBE_TIMEOUT_SECONDS
            versions = await_(model_server.versions(ModelRef(name), deadline=deadline))
            missing = describe_missing(default, versions)
            # TensorFlow Serving also lists the versions that it has unloaded.
            available = [status.version for status in versions if status.is_available]
            if not available:
                raise NotReadyError(missing)
            if default.version_label:
                await_(model_server.resolve(default, deadline=deadline))
        except ModelNotFoundError as error:
            raise NotReadyError(missing) from error
        except DigitError as error:
            raise NotReadyError("The model server does not answer.") from error
        warnings = await_(model_warnings.get(deadline))
        if services.limiter and not services.limiter.is_reachable():
            warnings.append("The store of DIGITS_RATE_LIMIT_STORE does not answer, so no rate limits apply.")
        for feature in services.features:
            with contained(feature):
                warnings += feature.warnings()
        if certificate and certificate.expiry < time.time():
            warnings.append("The certificate of DIGITS_TLS_CERTIFICATE has expired: callers refuse it.")
        document: Ready = {"status": "ready", "versions": available}
        return json_response({**document, "warnings": warnings} if warnings else document)

    @blueprint.get("/metrics")
    def exposition() -> Response:
        if certificate and math.isfinite(certificate.expiry):
            expiry.set(certificate.expiry)
        return Response(services.metrics.exposition(), content_type=CONTENT_TYPE)

    return blueprint


class ModelWarnings:
    """Sentences on versions that failed to load, and on models that do not answer or are left out.

    They are cached for a second: otherwise, each probe would ask the model server about every model, and list
    the models' folder. `clock` returns seconds, like time.monotonic.
    """

    def __init__(
        self, settings: Settings, model_server: AsyncConnection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._model_server, self._clock = settings, model_server, clock
        self._kept, self._kept_until = list[str](), -math.inf

    async def get(self, deadline: float) -> list[str]:
        """Return the sentences, which are at most a second old."""
        if self._clock() >= self._kept_until:
            self._kept = await self._ask(deadline)
            self._kept_until = self._clock() + _KEPT_SECONDS
        return [*self._kept]

    async def _ask(self, deadline: float) -> list[str]:
        file = self._settings.models_config
        folder = ModelsFolder(file.parent) if file else None
        names, left_out, versions = {*self._settings.models}, dict[str, str](), list[str]()
        if folder:
            try:
                left_out = await asyncio.to_thread(folder.left_out)
                versions = await asyncio.to_thread(folder.left_out_versions)
                names |= folder.read_config().base_paths.keys()
            except (ArtifactError, OSError):
                versions.append(
                    "models.config can't be read, so changes of it wait; `digits models ls` says why."
                )
        ordered = sorted(names)
        calls = (self._model_server.versions(ModelRef(name), deadline=deadline) for name in ordered)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        found = {
            name: [] if isinstance(answer, ModelNotFoundError) else answer
            for name, answer in zip(ordered, answers, strict=True)
            if isinstance(answer, (list, ModelNotFoundError))
        }
        failed = [
            f"Version {status.version} of the model {name} failed to load; the model server's log says why."
            for name, statuses in found.items()
            for status in statuses
            if status.error and not status.is_available
        ]
        absent = [
            describe_missing(ModelRef(name), statuses)
            for name, statuses in found.items()
            if name not in left_out and not any(status.is_available for status in statuses)
        ]
        models = [f"The model {name} is not served: {reason}." for name, reason in left_out.items()]
        return failed + absent + versions + models


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
