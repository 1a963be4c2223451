"""Servers for the client, grpcio's, and for clients, ours."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from digit_serving.unary import server as unary
from tests.processes import wait_until
from tests.serving.unary.methods import HANDLERS, Listen

METHOD = "/digits.Test/Call"


@dataclass
class Server:
    """One of grpcio's, whose one method answers as the test tells it; `calls` has the metadata of each call.

    By default it gives back what it gets.
    """

    answer: Callable[[bytes, grpc.ServicerContext], bytes] = lambda message, _context: message
    calls: list[dict[str, str | bytes]] = field(default_factory=list)
    server: grpc.Server = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self, address: str = "127.0.0.1:0", options: Mapping[str, int] = MappingProxyType({})) -> None:
        """Serve at that address, which `target` tells."""
        unlimited = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}
        self.server = grpc.server(ThreadPoolExecutor(8), options=list({**unlimited, **options}.items()))
        method: Any = grpc.unary_unary_rpc_method_handler(self._call)
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("digits.Test", {"Call": method}),)
        )
        port = self.server.add_insecure_port(address)
        self.target = f"127.0.0.1:{port}" if port > 1 else address
        self.server.start()

    def stop(self, grace: float = 0) -> None:
        """End it; calls that are out fail after `grace` seconds."""
        self.server.stop(grace).wait()

    def _call(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls.append(dict(context.invocation_metadata()))
        return self.answer(message, context)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def listen() -> Iterator[Listen]:
    with ExitStack() as stack:
        yield lambda tls=None, **options: _start(stack, tls, **options)[1]


@pytest.fixture
def address(listen: Listen) -> str:
    return listen()


@pytest.fixture
def ending() -> Iterator[tuple[unary.Server, str]]:
    """A server that the test ends, and its address."""
    with ExitStack() as stack:
        yield _start(stack)


def _start(stack: ExitStack, tls: Any = None, **options: float) -> tuple[unary.Server, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    server = unary.Server(HANDLERS, 4, **options)
    stack.callback(_stop, server)
    server.listen(listener, tls)
    return server, f"{host}:{port}"


def _stop(server: unary.Server) -> None:
    server.stop(0)
    server.join()
    wait_until(lambda: not _threads())


def _threads() -> list[str]:
    names = ("session", "accept", "tend", "call")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(names)]
