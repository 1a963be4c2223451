"""TLS handshakes on real connections, in front of an application that echoes."""

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from uvicorn import Config, Server

from digit_serving.gateway import tls
from digit_serving.gateway.bridge import Receive, Scope, Send
from digit_serving.gateway.edge import handshakes
from digit_serving.gateway.edge.handshakes import Handshakes
from digit_serving.gateway.edge.http_limits import LimitedHttpProtocol
from tests import certificates
from tests.certificates import Pair
from tests.processes import wait_until
from tests.serving.gateway.helpers import echo

pytestmark = pytest.mark.xdist_group("timing")

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CALLERS = 100
ACCEPTS = 4


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture
def trust(pair: Pair) -> ssl.SSLContext:
    """Context of a caller."""
    return ssl.create_default_context(cafile=pair.certificate)


@pytest.fixture
def hello(trust: ssl.SSLContext) -> bytes:
    """First bytes that a caller sends."""
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        trust.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


standing, released = threading.Event(), threading.Event()
"""Events of an event loop that stands still at the path /stand, and goes on."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/stand":
        standing.set()
        released.wait(20)
    await echo(scope, receive, send)


@contextmanager
def serving(pair: Pair, address_connections: int = 0) -> Iterator[int]:
    """Run a server with TLS in a thread, which accepts as many connections as a worker; yield its port."""
    context = tls.server_context(pair.certificate, pair.key)
    limits = {
        "handshakes": Handshakes(lambda: context),
        "address_connections": address_connections,
        "_waiting": handshakes.AddressConnections(),
    }
    protocol = type("Protocol", (LimitedHttpProtocol,), limits)
    server = Server(Config(application, http=protocol, ws="none", lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        sockets = [listener.dup() for _ in range(ACCEPTS)]
        thread = threading.Thread(target=server.run, args=(sockets,))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def connect(port: int, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    """Send data on a new connection from an address of loopback."""
    connection = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
    connection.sendall(data)
    return connection


def ask(connection: socket.socket, trust: ssl.SSLContext) -> bytes:
    """Return the answer to a request over TLS."""
    with trust.wrap_socket(connection, server_hostname="localhost") as secured:
        secured.sendall(REQUEST)
        return b"".join(iter(lambda: secured.recv(4096), b""))


def seconds_until_closed(connection: socket.socket) -> float:
    started = time.monotonic()
    with suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return time.monotonic() - started


@pytest.mark.parametrize("size", [0, 3, 100, None])
def test_handshake_incomplete_ends(
    pair: Pair, trust: ssl.SSLContext, hello: bytes, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "_HANDSHAKE_SECONDS", 0.7)
    with serving(pair, address_connections=10) as port, connect(port, hello[:size]) as half:
        assert ask(connect(port), trust).startswith(b"HTTP/1.1 200")
        assert 0.4 < seconds_until_closed(half) < 3


def test_handshake_of_no_tls_is_closed(pair: Pair) -> None:
    with serving(pair) as port, connect(port, REQUEST) as caller:
        assert seconds_until_closed(caller) < 3


def test_handshakes_count_as_connections_of_their_address(pair: Pair, trust: ssl.SSLContext) -> None:
    with serving(pair, address_connections=2) as port, ExitStack() as stack:
        oldest, _, _ = (stack.enter_context(connect(port)) for _ in range(3))
        assert seconds_until_closed(oldest) < 3
        other = stack.enter_context(connect(port, source="127.0.0.2"))
        assert ask(connect(port), trust).startswith(b"HTTP/1.1 200")
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.recv(1)


def test_handshakes_begun_by_an_address_are_limited(
    pair: Pair, hello: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "_MAX_BEGUN", 2)
    with serving(pair) as port, ExitStack() as stack:
        poll = select.poll()
        for _ in range(3):
            poll.register(stack.enter_context(connect(port, hello)), select.POLLRDHUP)
        wait_until(lambda: len(poll.poll(0)) == 1, seconds=3)


def test_handshakes_take_turns_by_address(pair: Pair, trust: ssl.SSLContext, hello: bytes) -> None:
    with serving(pair) as port, ExitStack() as stack:
        standing.clear()
        released.clear()
        stopping = trust.wrap_socket(connect(port), server_hostname="localhost")
        stack.enter_context(stopping).sendall(REQUEST.replace(b"/", b"/stand", 1))
        assert standing.wait(20)
        callers = [stack.enter_context(connect(port, hello)) for _ in range(CALLERS)]
        late = connect(port, source="127.0.0.2")
        threading.Timer(0.2, released.set).start()
        assert ask(late, trust).startswith(b"HTTP/1.1 200")
        poll = select.poll()
        for caller in callers:
            poll.register(caller, select.POLLIN)
        assert len(poll.poll(0)) < CALLERS * 2 / ACCEPTS
        wait_until(lambda: len(poll.poll(0)) == CALLERS)
