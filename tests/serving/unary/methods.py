"""Methods that try what can happen to a call."""

import time
from collections.abc import Callable
from typing import Any

import grpc

from digit_serving.unary.calls import Handler, StatusError

PROBLEM = "kein Modell „Ziffern“ – 100 % weg\n"


def _refuse(message: bytes, deadline: float) -> bytes:
    raise StatusError(grpc.StatusCode.NOT_FOUND, PROBLEM)


def _fail(message: bytes, deadline: float) -> bytes:
    raise RuntimeError("by intention")


def _sleep(message: bytes, deadline: float) -> bytes:
    time.sleep(float(message))
    return message


HANDLERS: dict[str, Handler] = {
    "/test/Echo": lambda message, _: message,
    "/test/Sleep": _sleep,
    "/test/Refuse": _refuse,
    "/test/Fail": _fail,
    "/test/Left": lambda _, deadline: b"%.3f" % (deadline - time.monotonic()),
}


def method(channel: grpc.Channel, name: str) -> Any:
    """One of these, to be called."""
    return channel.unary_unary(f"/test/{name}")


Listen = Callable[..., str]
"""Starts a server of these methods, with the options of Server and with `tls`, and gives its address."""
