"""The sockets that the servers listen on."""

import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from digit_serving import sockets


@pytest.mark.parametrize(("host", "elsewhere"), [("", True), ("127.0.0.1", False)])
def test_a_port_is_open_on_one_address_or_on_all(host: str, elsewhere: bool) -> None:
    with sockets.tcp(host, 0) as listener, socket.socket() as client:
        assert (client.connect_ex(("127.0.0.2", listener.getsockname()[1])) == 0) is elsewhere


def test_the_callers_of_a_shared_port_are_shared_out() -> None:
    with ExitStack() as stack:
        first = stack.enter_context(sockets.shared("127.0.0.1", 0))
        host, port = first.getsockname()
        second = stack.enter_context(sockets.shared(host, port))
        for listener in (first, second):
            listener.listen()
            listener.setblocking(False)
        for _ in range(64):
            stack.enter_context(socket.create_connection((host, port)))
        assert 10 < accepted(first) < 54
        assert accepted(second)
        with pytest.raises(OSError, match="in use"):
            sockets.tcp(host, port)


def accepted(listener: socket.socket) -> int:
    """How many callers were waiting."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


def test_a_socket_file_that_is_left_over_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    sockets.unix(path).close()
    with sockets.unix(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        assert client.getpeername() == path


def test_other_files_are_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        sockets.unix(str(path))
    assert path.read_text() == "precious"
