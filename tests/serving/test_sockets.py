"""Listening TCP sockets."""

import socket

import pytest

from digit_serving import sockets


@pytest.mark.parametrize(("host", "elsewhere"), [("", True), ("127.0.0.1", False)])
def test_a_port_is_open_on_one_address_or_on_all(host: str, elsewhere: bool) -> None:
    with sockets.tcp(host, 0) as listener, socket.socket() as client:
        assert (client.connect_ex(("127.0.0.2", listener.getsockname()[1])) == 0) is elsewhere


def test_a_port_in_use_is_refused() -> None:
    with sockets.tcp("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        sockets.tcp("127.0.0.1", listener.getsockname()[1])
