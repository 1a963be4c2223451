"""Application factory: the gateway as an ASGI application, Flask and its shared objects in one event loop."""

import asyncio
import time
from collections.abc import Awaitable

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from digit_core.errors import DigitError, UnavailableError
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway import auth, errors, openapi, ops, routes
from digit_serving.gateway.admission import Admission
from digit_serving.gateway.bridge import Application, BridgedFlask, Receive, Scope, Send, WsgiAdapter
from digit_serving.gateway.observe import observe_requests
from digit_serving.gateway.services import Services
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import default_version

_CONNECT_SECONDS = 2.0
"""Longest time that a worker waits for the model server before it listens, unready."""
_CONNECT_PAUSE_SECONDS = 0.05


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
        services = Services.create(settings)
        self._app = Admission(
            WsgiAdapter(create_app(services)),
            settings,
            services.metrics.count_overload,
            auth.is_allowed(services.verifier) if services.verifier else None,
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
    app.register_blueprint(routes.blueprint(services))
    app.register_blueprint(openapi.blueprint(settings))
    app.register_blueprint(ops.probes(services))
    app.register_blueprint(ops.pages(settings))
    return app
