"""The addresses that a target of gRPC's stands for."""

import socket
from collections.abc import Callable
from functools import partial

from digit_serving.unary.connection import Address

_SECONDS = 2.0


def resolver(target: str) -> Callable[[], list[Address]]:
    """A function that looks up host:port, dns:///host:port, dns://server[:port]/host:port or unix:path.

    It raises OSError where nothing can be found out. Raises ValueError where the target is none of these.
    """
    scheme, _, rest = target.partition(":")
    if scheme == "unix":
        return partial(list, [rest.removeprefix("//")])
    if scheme != "dns":
        return partial(_by_the_system, *_split(target))
    server, _, name = rest.removeprefix("//").rpartition("/")
    return partial(_by_a_server, server, *_split(name)) if server else partial(_by_the_system, *_split(name))


def authority(target: str) -> str:
    """What a target's servers are called: host:port, or localhost where they listen on a Unix socket."""
    return "localhost" if target.startswith("unix:") else target.rpartition("/")[2]


def host(authority: str) -> str:
    """The name that their certificate has to have."""
    return authority.rpartition(":")[0].strip("[]") or authority


def _split(name: str) -> tuple[str, int]:
    host, _, port = name.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{name!r} is no host:port")
    return host.strip("[]"), int(port)


def _by_the_system(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(address[0]), port) for *_, address in found))


def _by_a_server(server: str, host: str, port: int) -> list[Address]:
    # Few name a server of their own, and it takes a while to import.
    import dns.exception
    import dns.resolver

    address, _, dns_port = server.partition(":")
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [address], int(dns_port or 53)
    try:
        return [(record, port) for record in resolver.resolve_name(host, lifetime=_SECONDS).addresses()]
    except dns.exception.DNSException as error:
        raise OSError(f"{host} can't be looked up: {error}") from error
