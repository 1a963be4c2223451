"""An event loop beside the tests, and how they call in it what waits in greenlets."""

import asyncio
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import uvloop
from flask import Flask
from flask.testing import FlaskClient

from digit_serving import greenlets
from digit_serving.gateway import collector
from digit_serving.gateway.app import create_app
from digit_serving.gateway.backlog import Backlog
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.settings import Settings

_Result = TypeVar("_Result")


def call(function: Callable[..., _Result], *arguments: Any, **named: Any) -> _Result:
    """What the function returns or raises in a greenlet of the loop. Threads may call at the same time."""
    running = greenlets.run(lambda: function(*arguments, **named))
    return asyncio.run_coroutine_threadsafe(running, _loop()).result()


def app(settings: Settings) -> Flask:
    """The gateway's application, whose test clients ask within the loop."""
    backlog = Backlog(settings.queue, settings.patience)
    flask: Flask = call(create_app, settings, backlog, Metrics(), collector.traces(settings))
    flask.test_client_class = _Client
    return flask


def client(settings: Settings) -> FlaskClient:
    """What asks that application without a socket."""
    return app(settings).test_client()


class _Client(FlaskClient):
    def open(self, *arguments: Any, **named: Any) -> Any:
        return call(super().open, *arguments, **named)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
    return loop
