"""Listening TCP sockets."""

import socket


def tcp(host: str, port: int) -> socket.socket:
    """Listen on that address, or on all, IPv4 and IPv6. Raises OSError where the port is taken."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, dualstack_ipv6=both, backlog=128)


def resolve(host: str) -> str:
    """The IP address of a name, or of itself. Raises OSError."""
    *_, (address, *_) = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    return str(address)
