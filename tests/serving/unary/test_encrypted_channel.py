"""Unary calls to real gRPC servers that speak TLS."""

import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from digit_serving.unary.answers import CallError
from digit_serving.unary.channel import Channel
from tests import certificates, loop
from tests.certificates import Pair
from tests.serving.unary.conftest import METHOD


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("tls")
    return {name: certificates.make(folder, name) for name in ("server", "client", "other")}


Serve = Callable[..., str]


@pytest.fixture
def serve(pairs: dict[str, Pair]) -> Iterator[Serve]:
    """Start a server at an address, for the clients with this certificate where one is given."""
    servers = []

    def start(address: str = "127.0.0.1:0", client: Pair | None = None) -> str:
        server = grpc.server(ThreadPoolExecutor(4))
        handlers: dict[str, Any] = {"Call": grpc.unary_unary_rpc_method_handler(_describe)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("digits.Test", handlers),))
        own = (pairs["server"].key.read_bytes(), pairs["server"].certificate.read_bytes())
        authority = client.certificate.read_bytes() if client else None
        credentials = grpc.ssl_server_credentials([own], authority, client is not None)
        port = server.add_secure_port(address, credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}" if port > 1 else address

    yield start
    for server in servers:
        server.stop(0).wait()


def _describe(message: bytes, context: grpc.ServicerContext) -> bytes:
    """The message, and the name that the caller showed."""
    (name,) = context.auth_context().get("x509_common_name", [b"nobody"])
    return message + b" from " + bytes(name)


def tls(authority: Pair, own: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_alpn_protocols(["h2"])
    if own:
        context.load_cert_chain(own.certificate, own.key)
    return context


def asked(target: str, context: ssl.SSLContext | None, message: bytes = b"hello") -> Any:
    def ask() -> list[Any]:
        with closing(Channel(target, context)) as channel:
            call = channel.unary_unary(METHOD, bytes, bytes)
            return [call(message, timeout=20) for _ in range(3)]

    return loop.call(ask)


def test_calls_are_answered(serve: Serve, pairs: dict[str, Pair]) -> None:
    for target in (serve(), serve().replace("127.0.0.1", "localhost")):
        assert asked(target, tls(pairs["server"])) == [b"hello from nobody"] * 3


def test_large_messages_pass(serve: Serve, pairs: dict[str, Pair]) -> None:
    message = b"digit" * 600_000
    assert asked(serve(), tls(pairs["server"]), message) == [message + b" from nobody"] * 3


def test_a_name_is_looked_up_and_checked(serve: Serve, pairs: dict[str, Pair]) -> None:
    port = serve().rpartition(":")[2]
    assert asked(f"dns:///localhost:{port}", tls(pairs["server"]))


def test_a_unix_socket_is_called_localhost(serve: Serve, pairs: dict[str, Pair], tmp_path: Path) -> None:
    assert asked(serve(f"unix:{tmp_path}/socket"), tls(pairs["server"]))


def test_the_server_sees_who_calls(serve: Serve, pairs: dict[str, Pair]) -> None:
    target = serve(client=pairs["client"])
    assert asked(target, tls(pairs["server"], pairs["client"])) == [b"hello from client"] * 3


@pytest.mark.parametrize("own", [None, "other"])
def test_a_stranger_gets_no_answer(serve: Serve, pairs: dict[str, Pair], own: str | None) -> None:
    with pytest.raises(CallError) as caught:
        asked(serve(client=pairs["client"]), tls(pairs["server"], pairs[own] if own else None))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_server_that_nobody_vouches_for_is_not_asked(serve: Serve, pairs: dict[str, Pair]) -> None:
    with pytest.raises(CallError, match="self-signed certificate"):
        asked(serve(), tls(pairs["other"]))


def test_nor_is_one_of_another_name(serve: Serve, pairs: dict[str, Pair]) -> None:
    port = serve("127.0.0.2:0").rpartition(":")[2]
    with pytest.raises(CallError, match="IP address mismatch"):
        asked(f"127.0.0.2:{port}", tls(pairs["server"]))


def test_nor_one_that_does_not_encrypt(server: Any, pairs: dict[str, Pair]) -> None:
    with pytest.raises(CallError) as caught:
        asked(server.target, tls(pairs["server"]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(CallError):
        asked(server.target.replace("127.0.0.1", "localhost"), tls(pairs["server"]))
