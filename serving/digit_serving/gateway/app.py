"""Application factory: the gateway as an ASGI application, Flask and its shared objects in one event loop."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from flask import Flask, Request, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import MapAdapter

from digit_core.errors import DigitError, UnavailableError, how_to_install
from digit_core.tfserving.async_connection import AsyncConnection
from digit_serving.gateway import errors, openapi, ops, routes, tls
from digit_serving.gateway.admission import Admission
from digit_serving.gateway.asgi import Application, Receive, Scope, Send, WsgiAdapter
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.context import PROBE_ROUTES, RequestContext
from digit_serving.gateway.logging import RequestLog
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.gateway.routing import Router, default_version
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.shadow import Shadow

if TYPE_CHECKING:
    from digit_serving.gateway.answer_keeper import AnswerKeeper
    from digit_serving.gateway.tracing import RequestTracer

_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CONNECT_SECONDS = 2.0
"""Longest time that a worker waits for the model server before it listens, unready."""
_CONNECT_PAUSE_SECONDS = 0.05

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Objects that all requests of a worker share; None stands for what the settings leave out."""

    settings: Settings
    metrics: Metrics
    model_server: AsyncConnection
    tracer: "RequestTracer | None"
    limiter: RateLimiter | None
    keeper: "AnswerKeeper | None"
    shadow: Shadow | None

    @classmethod
    def create(cls, settings: Settings) -> Self:
        """Create the objects in the event loop that serves."""
        metrics = Metrics()
        limits, store = settings.rate_limit, settings.rate_limit_store
        if settings.feedback:
            # Lazy, because it needs the extra feedback.
            from digit_serving.gateway.answer_keeper import AnswerKeeper

            keeper: AnswerKeeper | None = AnswerKeeper(settings, metrics)
        else:
            keeper = None
        return cls(
            settings,
            metrics,
            AsyncConnection(settings.model_server, tls.channel_credentials(settings)),
            create_tracer(settings),
            RateLimiter(limits, store, metrics.rate_limit_store_failures.inc) if limits else None,
            keeper,
            Shadow(settings, metrics) if settings.has_shadow else None,
        )

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


class Gateway:
    """ASGI application that connects to the model server at startup, in the event loop that serves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        settings = self._settings
        services = Services.create(settings)
        adapter = WsgiAdapter(create_app(services), settings.max_body)
        self._app = Admission(adapter, settings, services.metrics.count_overload)
        await receive()
        if services.keeper:
            services.keeper.start()
        await _connect(services.model_server, settings)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await services.close()
        await send({"type": "lifespan.shutdown.complete"})


class _Flask(Flask):
    """Flask without two services that cost each request 30 µs: coroutines as views, and routing by host."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: no view is a coroutine."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return an adapter that matches path and method alone."""
        if request is None:
            return None
        return self.url_map.bind("", path_info=request.path, default_method=request.method)


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


def create_app(services: Services) -> Flask:
    """Create the gateway's WSGI application. Its views use `asgi.await_`, so `asgi.run` must call it."""
    settings = services.settings
    app = _Flask(__name__, static_folder=None)
    # Werkzeug merges slashes by a redirect to the Host header, which the caller chooses.
    app.url_map.merge_slashes = False
    # Werkzeug's limit of parts is that of RequestParser, which counts them first.
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body, MAX_FORM_PARTS=settings.max_images + 1)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    _observe_requests(app, services)
    app.register_error_handler(Exception, errors.handle)
    batcher = Batcher(services.model_server, settings, services.tracer)
    router = Router(settings, services.model_server, batcher)
    app.register_blueprint(routes.blueprint(services, router))
    app.register_blueprint(openapi.blueprint(settings))
    app.register_blueprint(ops.probes(services))
    app.register_blueprint(ops.pages(settings))
    return app


def create_tracer(settings: Settings) -> "RequestTracer | None":
    """Return a tracer, or None if tracing is off.

    Tracing is on if OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set and
    OTEL_SDK_DISABLED is not true.
    """
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


def _observe_requests(app: Flask, services: Services) -> None:
    """Count, log and trace each request of the app; `g.context` is its RequestContext.

    The request ID is the caller's X-Request-ID if valid, otherwise a new one. The answer, the call to the
    model server and the log line carry this ID. Probes and metrics are not counted, logged or traced.
    """

    metrics, tracer = services.metrics, services.tracer
    request_log = RequestLog(services.settings)

    def begin() -> None:
        # The object behind the proxy, which looks it up at each access.
        received: Request = request._get_current_object()  # type: ignore[attr-defined]
        g.context = context = RequestContext.from_request(received)
        if tracer and context.route not in PROBE_ROUTES:
            tracer.start_request(context, received)

    def end(response: Response) -> Response:
        context: RequestContext = g.context
        context.ended_at = time.perf_counter()
        context.status = response.status_code
        response.headers.add("X-Request-ID", context.request_id)
        response.headers.add("X-Content-Type-Options", "nosniff")
        if context.route not in PROBE_ROUTES:
            metrics.count_request(context)
            request_log.add(context)
            if tracer:
                tracer.end_request(context)
        return response

    app.before_request(begin)
    app.after_request(end)
