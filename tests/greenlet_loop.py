"""An event loop in a thread of its own, in which tests call what awaits below the greenlet bridge."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

import uvloop
from flask import Flask
from flask.testing import FlaskClient

from digit_client.tfserving.model_server import AsyncModelServer
from digit_serving.gateway import asgi, tls, tracing_setup
from digit_serving.gateway.app import create_app
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.settings import Settings

_Result = TypeVar("_Result")


def call(function: Callable[..., _Result], *arguments: Any, **named: Any) -> _Result:
    """Call a function below the bridge, and return or raise as it does. Threads may call at the same time."""
    return run(asgi.run(lambda: function(*arguments, **named)))


def run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine in the loop, and return or raise as it does."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


def app(settings: Settings) -> Flask:
    """The gateway's Flask application, whose test clients call it in the loop."""

    async def create() -> Flask:
        model_server = AsyncModelServer(settings.model_server, tls.credentials(settings))
        return create_app(settings, model_server, Metrics(), tracing_setup.traces(settings))

    flask = run(create())
    flask.test_client_class = _Client
    return flask


def client(settings: Settings) -> FlaskClient:
    """A test client of that application, without a socket."""
    return app(settings).test_client()


class _Client(FlaskClient):
    def open(self, *arguments: Any, **named: Any) -> Any:
        return call(super().open, *arguments, **named)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
    return loop
