"""Application: the gateway as an ASGI application, Flask and the objects that all requests share."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from digit_core.errors import DigitError, UnavailableError, how_to_install
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway import errors, openapi, ops, tls
from digit_serving.gateway.admission import Admission
from digit_serving.gateway.auth import KeyVerifier, protect
from digit_serving.gateway.bridge import Application, BridgedFlask, Receive, Scope, Send, WsgiAdapter
from digit_serving.gateway.feedback import FeedbackViews
from digit_serving.gateway.observe import Metrics, observe_requests
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.shadow import Shadow
from digit_serving.gateway.upstream import Upstream, default_version
from digit_serving.gateway.views import Views

if TYPE_CHECKING:
    # They need the extras feedback and otel.
    from digit_serving.gateway.answer_keeper import AnswerKeeper
    from digit_serving.gateway.tracing import RequestTracer

_CONNECT_SECONDS = 2.0
"""Longest time that a worker waits for the model server before it listens, unready."""
_CONNECT_PAUSE_SECONDS = 0.05
_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CORS_HEADERS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-ID",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-ID",
    "Access-Control-Max-Age": "600",
}

_log = logging.getLogger(__name__)


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
        verifier = services.verifier
        self._app = Admission(
            WsgiAdapter(create_app(services)),
            settings,
            services.metrics.count_overload,
            verifier.is_allowed if verifier else None,
        )
        await receive()
        if services.keeper:
            services.keeper.start()
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
    while (left := end - time.monotonic()) > 0:
        try:
            await model_server.task(default, timeout=left)
        except UnavailableError:
            await asyncio.sleep(_CONNECT_PAUSE_SECONDS)
        except DigitError:
            # The model server answers: /readyz says what is missing.
            return
        else:
            return


class Services:
    """Objects that all requests of a worker share; None stands for what the settings leave out.

    Create them in the event loop that serves.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = metrics = Metrics()
        self.tracer = create_tracer(settings)
        self.model_server = AsyncConnection(settings.model_server, tls.channel_credentials(settings))
        self.shadow = Shadow(settings, metrics) if settings.has_shadow else None
        self.upstream = Upstream(settings, self.model_server, self.tracer, self.shadow)
        self.verifier = KeyVerifier(settings.api_keys) if settings.api_keys else None
        limits, store = settings.rate_limit, settings.rate_limit_store
        self.limiter = RateLimiter(limits, store, metrics.rate_limit_store_failures().inc) if limits else None
        self.keeper = _create_keeper(settings, metrics) if settings.feedback else None

    async def close(self) -> None:
        """Finish the work in the background."""
        if self.shadow:
            await self.shadow.close()
        await self.model_server.close()
        if self.keeper:
            await asyncio.to_thread(self.keeper.close)
        if self.tracer:
            self.tracer.shutdown()
        self.metrics.write()


def _create_keeper(settings: Settings, metrics: Metrics) -> "AnswerKeeper":
    from digit_serving.gateway.answer_keeper import AnswerKeeper

    return AnswerKeeper(settings, metrics)


def create_tracer(settings: Settings) -> "RequestTracer | None":
    """Return a tracer if one of _OTLP_ENDPOINTS is set and OTEL_SDK_DISABLED is not true, else None."""
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_disabled or not any(map(os.environ.get, _OTLP_ENDPOINTS)):
        return None
    try:
        from digit_serving.gateway.tracing import RequestTracer
    except ImportError:
        _log.warning(
            "tracing is off: the OTEL_EXPORTER_… variables need the extra otel; %s", how_to_install("otel")
        )
        return None
    return RequestTracer(settings.model_server)


def create_app(services: Services) -> Flask:
    """Create the gateway's WSGI application. Its views use `bridge.await_`, so `bridge.run` must call it."""
    settings = services.settings
    app = BridgedFlask(__name__, static_folder=None)
    # Werkzeug merges slashes by a redirect to the Host header, which the caller chooses.
    app.url_map.merge_slashes = False
    # Werkzeug's limit of parts is that of BodyParser, which counts them first.
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body, MAX_FORM_PARTS=settings.max_images + 1)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    observe_requests(app, settings, services.metrics, services.tracer)
    app.register_error_handler(Exception, errors.handle)
    for blueprint in (_api(services), openapi.blueprint(settings), ops.probes(services), ops.pages(settings)):
        app.register_blueprint(blueprint)
    return app


def _api(services: Services) -> Blueprint:
    """Return the routes of /v1, with feedback if answers are kept, and labelling if keys protect it."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    settings, upstream, keeper = services.settings, services.upstream, services.keeper
    views = Views(settings, upstream, keeper)
    api.post("/predict")(views.predict)
    api.post("/read")(views.read)
    api.get("/models")(views.models)
    if keeper:
        feedback = FeedbackViews(settings, upstream, keeper, services.metrics)
        api.post("/feedback")(feedback.give)
        if settings.offers_labelling:
            api.get("/feedback/unlabelled")(feedback.unlabelled)
            api.post("/feedback/labels")(feedback.label)
    if services.verifier or services.limiter:
        protect(api, services.verifier, services.limiter)
    if settings.cors_origins:
        _enable_cors(api, settings.cors_origins)
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
