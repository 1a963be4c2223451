"""The sockets that the servers listen on."""

import socket
import stat
from contextlib import suppress
from pathlib import Path

_BACKLOG = 128


def tcp(host: str, port: int) -> socket.socket:
    """The port on that address, or on all of the machine, IPv4 and IPv6. Raises OSError where it is taken."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, dualstack_ipv6=both, backlog=_BACKLOG)


def shared(host: str, port: int) -> socket.socket:
    """One of several sockets for the port on that address, among which its callers are shared out.

    Raises OSError where others have it.
    """
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind((host, port))
    return opened


def resolve(host: str) -> str:
    """The IP address of a name, or of itself. Raises OSError."""
    *_, (address, *_) = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    return str(address)


def unix(path: str) -> socket.socket:
    """A socket file, in place of one that is left over. Raises OSError."""
    with suppress(OSError):
        if stat.S_ISSOCK(Path(path).stat().st_mode):
            Path(path).unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
