"""Event loop in a background thread: tests call functions in it through the gateway's greenlet bridge."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import uvloop
from flask import Flask
from flask.testing import FlaskClient

from digit_client.tfserving.connection import AsyncConnection
from digit_serving.gateway import asgi, tls
from digit_serving.gateway.answer_keeper import AnswerKeeper
from digit_serving.gateway.app import create_app
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.shadow import Shadow
from digit_serving.gateway.tracing import RequestTracer

_Result = TypeVar("_Result")


def call(function: Callable[..., _Result], *arguments: Any, **named: Any) -> _Result:
    """Call the function through `asgi.run`. Return its result or raise its error. Thread-safe."""
    return run(asgi.run(lambda: function(*arguments, **named)))


def run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine in the loop. Return its result or raise its error. Thread-safe."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


def app(settings: Settings, tracer: RequestTracer | None = None) -> Flask:
    """Create the gateway's Flask application, whose test clients call it in the loop."""

    return _app(settings, Metrics(), tracer, None)


def client(settings: Settings, tracer: RequestTracer | None = None) -> FlaskClient:
    """Create a test client of the gateway's application, which needs no HTTP socket."""
    return app(settings, tracer).test_client()


@contextmanager
def keeping(settings: Settings) -> Iterator[FlaskClient]:
    """Yield a test client of an application that keeps answers for feedback, as DIGITS_FEEDBACK says."""
    metrics = Metrics()
    keeper = AnswerKeeper(settings, metrics)
    keeper.start()
    try:
        yield _app(settings, metrics, None, keeper).test_client()
    finally:
        keeper.close()


def _app(
    settings: Settings, metrics: Metrics, tracer: RequestTracer | None, keeper: AnswerKeeper | None
) -> Flask:
    async def create() -> Flask:
        model_server = AsyncConnection(settings.model_server, tls.channel_credentials(settings))
        shadow = Shadow(settings, metrics) if settings.has_shadow else None
        return create_app(settings, model_server, metrics, tracer, keeper, shadow)

    flask = run(create())
    flask.test_client_class = _Client
    return flask


class _Client(FlaskClient):
    def open(self, *arguments: Any, **named: Any) -> Any:
        return call(super().open, *arguments, **named)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
    return loop
