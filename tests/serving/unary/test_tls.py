"""Encryption."""

import ssl

import grpc
import pytest

from digit_serving.unary import frames
from tests import certificates
from tests.certificates import Pair
from tests.serving.unary.methods import Listen, method
from tests.serving.unary.raw import RawClient


def context(own: Pair, *clients: Pair) -> ssl.SSLContext:
    """A server's, for these clients only where there are any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.set_alpn_protocols(["h2"])
    for client in clients:
        context.load_verify_locations(client.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("tls")
    return {name: certificates.make(folder, name) for name in ("server", "client")}


def echo(address: str, server: Pair, client: Pair | None, message: bytes) -> bytes:
    own = (client.key.read_bytes(), client.certificate.read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(server.certificate.read_bytes(), *own)
    options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
    with grpc.secure_channel(address, credentials, options) as channel:
        answer: bytes = method(channel, "Echo")(message, timeout=20)
        return answer


@pytest.mark.parametrize("size", [5, 5_000_000])
def test_calls(listen: Listen, pairs: dict[str, Pair], size: int) -> None:
    address = listen(context(pairs["server"]))
    assert echo(address, pairs["server"], None, b"x" * size) == b"x" * size


def test_clients_show_who_they_are(listen: Listen, pairs: dict[str, Pair]) -> None:
    address = listen(context(pairs["server"], pairs["client"]))
    assert echo(address, pairs["server"], pairs["client"], b"hello") == b"hello"
    for other in (None, pairs["server"]):
        with pytest.raises(grpc.RpcError) as caught:
            echo(address, pairs["server"], other, b"hello")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_answers_while_a_request_comes(listen: Listen, pairs: dict[str, Pair]) -> None:
    address, server = listen(context(pairs["server"])), pairs["server"]
    credentials = grpc.ssl_channel_credentials(server.certificate.read_bytes())
    with grpc.secure_channel(address, credentials) as channel:
        echo, messages = method(channel, "Echo"), [bytes([at]) * 1_000_000 for at in range(20)]
        futures = [echo.future(message, timeout=30) for message in messages]
        assert [future.result() for future in futures] == messages


def test_a_client_without_encryption_is_turned_away(listen: Listen, pairs: dict[str, Pair]) -> None:
    address = listen(context(pairs["server"]))
    with (
        RawClient(address, frames.PREFACE) as client,
        pytest.raises((EOFError, ConnectionError, frames.ProtocolError)),
    ):
        client.wait_for(lambda _: False)
    assert echo(address, pairs["server"], None, b"hello") == b"hello"
