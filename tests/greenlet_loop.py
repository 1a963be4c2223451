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

from digit_serving.gateway import bridge
from digit_serving.gateway.app import create_app
from digit_serving.gateway.services import Services
from digit_serving.gateway.settings import Settings
from tests import documented

_Result = TypeVar("_Result")


def call(function: Callable[..., _Result], *arguments: Any, **named: Any) -> _Result:
    """Call the function through `bridge.run`. Return its result or raise its error. Thread-safe."""
    return run(bridge.run(lambda: function(*arguments, **named)))


def run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine in the loop. Return its result or raise its error. Thread-safe."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


def app(settings: Settings) -> Flask:
    """Create the gateway's Flask application, whose test clients call it in the loop."""
    return _app(_services(settings))


def client(settings: Settings) -> FlaskClient:
    """Create a test client of the gateway's application, which needs no HTTP socket."""
    return app(settings).test_client()


@contextmanager
def keeping(settings: Settings) -> Iterator[FlaskClient]:
    """Yield a test client of an application with a store and traces, and ends both after the block."""
    services = _services(settings)
    try:
        yield _app(services).test_client()
    finally:
        run(services.close())


def _services(settings: Settings) -> Services:
    async def create() -> Services:
        return Services(settings)

    return run(create())


def _app(services: Services) -> Flask:
    flask = create_app(services)
    flask.test_client_class = _Client
    return flask


class _Client(FlaskClient):
    def open(self, *arguments: Any, **named: Any) -> Any:
        response = call(super().open, *arguments, **named)
        documented.check(response)
        return response


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
    return loop
