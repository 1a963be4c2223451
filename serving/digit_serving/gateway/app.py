"""The gateway as an ASGI application: Flask, and what it shares between requests, in one event loop."""

from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from digit_client.model_server import AsyncModelServer
from digit_serving.gateway import api, collector, docs, errors, health, hooks, openapi, page, tls
from digit_serving.gateway.admission import Admission
from digit_serving.gateway.asgi import Application, Receive, Scope, Send, WsgiAdapter
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from digit_serving.gateway.traces import Traces


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
        settings, metrics, traces = self._settings, Metrics(), collector.traces(self._settings)
        model_server = AsyncModelServer(settings.model_server, tls.credentials(settings))
        self._app = Admission(
            WsgiAdapter(create_app(settings, model_server, metrics, traces), settings.max_body),
            capacity=settings.queue,
            max_queue_time=settings.patience,
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
        model_server, max_inflight_calls=settings.calls, max_images=settings.max_images, traces=traces
    )
    hooks.register(app, metrics, traces)
    errors.register(app)
    app.register_blueprint(api.blueprint(settings, model_server, Router(settings, batcher)))
    app.register_blueprint(health.blueprint(settings, model_server, metrics))
    app.register_blueprint(openapi.blueprint(settings))
    app.register_blueprint(docs.blueprint())
    app.register_blueprint(page.blueprint())
    return app
