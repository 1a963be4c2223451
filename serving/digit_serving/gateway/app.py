"""Application: the gateway as an ASGI application, Flask and the objects that all requests share."""

import asyncio
import time
from collections.abc import Awaitable, Collection

from flask import Blueprint, Flask, Request, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from digit_core.errors import DigitError, UnavailableError
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway import errors, openapi
from digit_serving.gateway.auth import protect
from digit_serving.gateway.bridge import (
    DEADLINE,
    Application,
    BridgedFlask,
    Receive,
    Scope,
    Send,
    WsgiAdapter,
)
from digit_serving.gateway.edge.admission import Admission
from digit_serving.gateway.health import probes
from digit_serving.gateway.observers import Observers
from digit_serving.gateway.pages import pages
from digit_serving.gateway.parsing import MAX_FIELDS
from digit_serving.gateway.request import PROBE_ROUTES, Deadlines, Facts, RequestContext
from digit_serving.gateway.services import Services
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import default_version
from digit_serving.gateway.views import Views

_CONNECT_SECONDS = 2.0
"""Longest time that a worker waits for the model server before it listens, unready."""
_CONNECT_PAUSE_SECONDS = 0.05
_CORS_HEADERS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-ID",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-ID",
    "Access-Control-Max-Age": "600",
}


class Gateway:
    """ASGI application that connects to the model server at startup, in the event loop that serves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Application

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._run_lifespan(receive, send)
        return self._app(scope, receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        settings = self._settings
        services = Services(settings)
        app, verifier = create_app(services), services.verifier
        posts = {rule.rule for rule in app.url_map.iter_rules() if "POST" in (rule.methods or ())}

        def takes_body(scope: Scope) -> bool:
            is_post = scope["method"] == "POST" and scope["path"] in posts
            return is_post and (verifier is None or verifier.has_key(scope))

        self._app = Admission(
            WsgiAdapter(app), settings, services.metrics.count_overload, takes_body, services.work.slices
        )
        await receive()
        await _connect(services.model_server, settings)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await services.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _connect(model_server: AsyncConnection, settings: Settings) -> None:
    """Connect and read the default model's task, for at most _CONNECT_SECONDS.

    The worker listens after that, so that /readyz of one worker holds for the others.
    """
    default = default_version(settings, settings.model_name)
    end = time.monotonic() + _CONNECT_SECONDS
    while time.monotonic() < end:
        try:
            await model_server.served(default, deadline=end)
        except UnavailableError:
            await asyncio.sleep(_CONNECT_PAUSE_SECONDS)
        except DigitError:
            # The model server answers: /readyz says what is missing.
            return
        else:
            return


def create_app(services: Services) -> Flask:
    """Create the gateway's WSGI application. Its views use `bridge.await_`, so `bridge.run` must call it."""
    settings = services.settings
    app = BridgedFlask(__name__, static_folder=None)
    # Werkzeug merges slashes by a redirect to the Host header, which the caller chooses.
    app.url_map.merge_slashes = False
    # Werkzeug's limit of parts equals that of BodyParser, which counts them first.
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body, MAX_FORM_PARTS=settings.max_images + MAX_FIELDS)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    _observe_requests(app, settings, services.observers)
    app.register_error_handler(Exception, errors.handle)
    for blueprint in (_api(services), openapi.blueprint(settings), probes(services), pages(settings)):
        app.register_blueprint(blueprint)
    return app


def _observe_requests(app: Flask, settings: Settings, observers: Observers) -> None:
    """Emit the beginning and the end of each request of the app; `g.context` is its RequestContext.

    The request ID is the caller's X-Request-ID if valid, otherwise a new one. The answer, the call to the
    model server and the log line carry this ID. Probes and metrics are not observed.
    """

    deadlines = Deadlines(settings)

    def begin() -> None:
        # Unwrap the proxy, which looks the object up at each access.
        received: Request = request._get_current_object()  # type: ignore[attr-defined]
        now = time.monotonic()
        # Tests call the application without Admission.
        deadline = received.environ.get(DEADLINE) or deadlines.of_query(received.query_string, now)
        g.context = context = RequestContext.from_request(received, deadline, now)
        if context.rule not in PROBE_ROUTES:
            for began in observers.began:
                began(context, received)

    def end(response: Response) -> Response:
        context: RequestContext = g.context
        context.ended_at = time.monotonic()
        context.status = response.status_code
        response.headers.add("X-Request-ID", context.request_id)
        response.headers.add("X-Content-Type-Options", "nosniff")
        if context.rule not in PROBE_ROUTES:
            facts = Facts(context)
            for ended in observers.ended:
                ended(facts)
        return response

    app.before_request(begin)
    app.after_request(end)


def _api(services: Services) -> Blueprint:
    """Return the routes of /v1."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    views, origins = Views(services), services.settings.cors_origins
    api.post("/predict")(views.predict)
    api.post("/read")(views.read)
    api.get("/models")(views.models)
    for feature in services.features:
        feature.routes(api, services.upstream)
    if services.verifier or services.limiter:
        protect(api, services.verifier, services.limiter)
    if origins:
        _enable_cors(api, origins)
    return api


def _enable_cors(api: Blueprint, origins: Collection[str]) -> None:
    """Allow pages of these origins, such as `https://app.example.com`, to call the API."""

    @api.after_request
    def add(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.origin
        if origin in origins:
            response.headers.update(_CORS_HEADERS | {"Access-Control-Allow-Origin": origin})
        return response
