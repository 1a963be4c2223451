"""A gRPC server whose one method answers as the test tells it."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc
import pytest

METHOD = "/digits.Test/Call"


@dataclass
class Server:
    """By default it gives back what it gets; `calls` has the metadata of each call."""

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
