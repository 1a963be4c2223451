"""The Flask application."""

from functools import partial
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from digit_client.model_server import ModelServer
from digit_serving.gateway import api, collector, docs, errors, health, hooks, openapi, page, tls
from digit_serving.gateway.asgi import Application, Asgi, Ending
from digit_serving.gateway.backlog import Backlog
from digit_serving.gateway.batching import Batcher
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.wsgi import Gateway
from digit_serving.unary.channel import Channel

if TYPE_CHECKING:
    from digit_serving.gateway.traces import Traces


def create_asgi_app(settings: Settings, backlog: Backlog, metrics: Metrics) -> Application:
    """The gateway as an ASGI application, to be created within the event loop in which it answers."""
    traces = collector.traces(settings)
    app = create_app(settings, backlog, metrics, traces)
    return Ending(Asgi(app, settings.max_body, backlog), traces.close if traces else None)


def create_app(settings: Settings, backlog: Backlog, metrics: Metrics, traces: "Traces | None") -> Flask:
    """The gateway as a WSGI application, for the greenlets of the event loop within which it is created."""
    app = Gateway(__name__, static_folder=None)
    # A path with two slashes would be redirected, to a host that the routes don't go by.
    app.url_map.merge_slashes = False
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body, MAX_FORM_PARTS=settings.max_images + 1)
    model_server = ModelServer(settings.model_server, partial(Channel, tls=tls.context(settings)))
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    batcher = Batcher(
        model_server, backlog, calls=settings.calls, max_images=settings.max_images, traces=traces
    )
    hooks.register(app, metrics, traces)
    errors.register(app)
    app.register_blueprint(api.blueprint(settings, model_server, Router(settings, batcher)))
    app.register_blueprint(health.blueprint(settings, model_server, metrics))
    app.register_blueprint(openapi.blueprint(settings))
    app.register_blueprint(docs.blueprint())
    app.register_blueprint(page.blueprint())
    return app
