"""Listening TCP sockets."""

import socket

import pytest

from digit_serving import sockets


@pytest.mark.parametrize(("host", "on_every_address"), [("", True), ("127.0.0.1", False)])
def test_listen_opens_the_port_on_one_address_or_all(host: str, on_every_address: bool) -> None:
    with sockets.listen(host, 0) as listener, socket.socket() as client:
        assert (client.connect_ex(("127.0.0.2", listener.getsockname()[1])) == 0) is on_every_address


def test_listen_on_port_in_use_raises() -> None:
    with sockets.listen("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        sockets.listen("127.0.0.1", listener.getsockname()[1])


def test_resolve_returns_an_ip_address() -> None:
    assert sockets.resolve("localhost") in ("127.0.0.1", "::1")
    assert sockets.resolve("127.0.0.2") == "127.0.0.2"
