"""Command-line options for a connection to the model server: address and TLS files."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--model-server",
        "target",
        default="127.0.0.1:8500",
        envvar="DIGITS_MODEL_SERVER",
        show_default=True,
        show_envvar=True,
        help="Model server's gRPC address.",
    ),
    click.option(
        "--ca",
        envvar="DIGITS_MODEL_SERVER_CA",
        show_envvar=True,
        type=_FILE,
        help="CA certificate of the model server (PEM). With it, the connection uses TLS.",
    ),
    click.option(
        "--certificate",
        envvar="DIGITS_MODEL_SERVER_CERTIFICATE",
        show_envvar=True,
        type=_FILE,
        help="Client certificate (PEM), for a model server that demands one.",
    ),
    click.option(
        "--key",
        envvar="DIGITS_MODEL_SERVER_KEY",
        show_envvar=True,
        type=_FILE,
        help="Key of the client certificate (PEM).",
    ),
)


@dataclass(frozen=True)
class Endpoint:
    """Address of a model server, and the PEM files for TLS with it."""

    target: str
    ca: Path | None
    certificate: Path | None
    key: Path | None

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Open a Connection for the block. Raises click.UsageError for an incomplete set of TLS files."""
        from digit_client.tfserving.connection import Connection

        server = Connection(self.target, self._credentials())
        try:
            yield server
        finally:
            server.close()

    def _credentials(self) -> Any:
        import grpc

        if bool(self.certificate) != bool(self.key) or (self.certificate and not self.ca):
            raise click.UsageError("--certificate needs --key and --ca, and --key needs --certificate")
        if not self.ca:
            return None
        pair = (path.read_bytes() for path in (self.key, self.certificate) if path)
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), *pair)


def endpoint_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to the command, and pass their values to its parameter `endpoint`."""

    @functools.wraps(command)
    def with_endpoint(
        target: str, ca: Path | None, certificate: Path | None, key: Path | None, **others: Any
    ) -> None:
        command(endpoint=Endpoint(target, ca, certificate, key), **others)

    for option in reversed(_OPTIONS):
        with_endpoint = option(with_endpoint)
    return with_endpoint
