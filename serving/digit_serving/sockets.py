"""Listening TCP sockets, and resolution of their hosts."""

import socket


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host`, or on every IPv4 and IPv6 address if `host` is empty.

    Port 0 selects a free port. Raises OSError if the port is taken.
    """
    dual_stack = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual_stack or ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, dualstack_ipv6=dual_stack, backlog=128)


def resolve(host: str) -> str:
    """Return the IP address of a host name or IP address. Raises OSError."""
    *_, (address, *_) = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    return str(address)
