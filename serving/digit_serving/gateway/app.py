"""The gateway as an ASGI application: Flask, and what it shares between requests, in one event loop."""

import time
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from digit_client.tfserving.model_server import AsyncModelServer
from digit_serving.gateway import context, errors, logging, openapi, ops, routes, tls, tracing_setup
from digit_serving.gateway.admission import Admission
from digit_serving.gateway.asgi import Application, Receive, Scope, Send, WsgiAdapter
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from digit_serving.gateway.tracing import Traces


class Gateway:
    """ASGI application that connects to the model server at startup, in the loop that serves it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        settings, metrics, traces = self._settings, Metrics(), tracing_setup.traces(self._settings)
        model_server = AsyncModelServer(settings.model_server, tls.credentials(settings))
        self._app = Admission(
            WsgiAdapter(create_app(settings, model_server, metrics, traces), settings.max_body),
            capacity=settings.queue_capacity,
            max_queue_time=settings.max_queue_time,
            max_body=settings.max_body,
            on_refusal=metrics.count_overload,
        )
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await model_server.close()
        if traces:
            traces.close()
        await send({"type": "lifespan.shutdown.complete"})


def create_app(
    settings: Settings, model_server: AsyncModelServer, metrics: Metrics, traces: "Traces | None"
) -> Flask:
    """The gateway as a WSGI application, to be called below `bridge.run`."""
    app = Flask(__name__, static_folder=None)
    # Flask would redirect a path with two slashes, to a host that the request names.
    app.url_map.merge_slashes = False
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body, MAX_FORM_PARTS=settings.max_images + 1)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    batcher = Batcher(
        model_server,
        max_inflight_calls=settings.max_inflight_calls,
        max_images=settings.max_images,
        traces=traces,
    )
    _observe_requests(app, metrics, traces)
    errors.register(app)
    app.register_blueprint(routes.blueprint(settings, model_server, Router(settings, batcher)))
    app.register_blueprint(ops.blueprint(settings, model_server, metrics))
    app.register_blueprint(openapi.blueprint(settings))
    app.register_blueprint(ops.blueprint_docs())
    app.register_blueprint(ops.blueprint_page())
    return app


def _observe_requests(app: Flask, metrics: Metrics, traces: "Traces | None") -> None:
    """Name, count, log and trace each request of the app; `g.context` is what is known of it.

    X-Request-ID is taken where it is sane, else made; it is in the answer, the log and the call to the model
    server. Health checks are neither counted, nor logged, nor traced.
    """

    def begin() -> None:
        g.context = record = context.begin(request)
        if traces and record.route not in context.PROBE_ROUTES:
            traces.begin(record, request)

    def end(response: Response) -> Response:
        record: RequestContext = g.context
        record.ended = time.perf_counter()
        record.status = response.status_code
        response.headers.add("X-Request-ID", record.request_id)
        response.headers.add("X-Content-Type-Options", "nosniff")
        if record.route not in context.PROBE_ROUTES:
            metrics.count(record)
            logging.write(record)
            if traces:
                traces.end(record)
        return response

    app.before_request(begin)
    app.after_request(end)
