"""Listening TCP sockets, resolution of their hosts, and addresses of callers."""

import ipaddress
import socket


def available(host: str) -> str:
    """Return `host`, or 0.0.0.0 in place of `::` where the kernel has no IPv6."""
    return "0.0.0.0" if host == "::" and not socket.has_dualstack_ipv6() else host  # noqa: S104


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host`, or on every IPv4 and IPv6 address if `host` is empty or `::`.

    Port 0 selects a free port. Raise OSError if the port is taken.
    """
    dual_stack = host in ("", "::") and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual_stack or ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, dualstack_ipv6=dual_stack)


def resolve(host: str) -> str:
    """Return the IP address of a host name or IP address. Raise OSError."""
    *_, (address, *_) = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    return str(address)


def network(address: str | None) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address: one customer has a whole network."""
    if not address or ":" not in address:
        return address or "unknown"
    try:
        # A socket of both families reports IPv4 addresses as IPv6.
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
        return str(mapped or ipaddress.ip_network(f"{address}/64", strict=False))
    except ValueError:
        return address
