"""The options of a command that asks the model server: where it is, and the files to speak TLS with."""

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
        help="The model server's gRPC address.",
    ),
    click.option(
        "--ca",
        envvar="DIGITS_MODEL_SERVER_CA",
        show_envvar=True,
        type=_FILE,
        help="Certificate of the authority that vouches for it; with it they speak TLS.",
    ),
    click.option(
        "--certificate",
        envvar="DIGITS_MODEL_SERVER_CERTIFICATE",
        show_envvar=True,
        type=_FILE,
        help="What it is shown.",
    ),
    click.option(
        "--key",
        envvar="DIGITS_MODEL_SERVER_KEY",
        show_envvar=True,
        type=_FILE,
        help="That certificate's key.",
    ),
)


@dataclass(frozen=True)
class Address:
    """The model server that the user named; the files are in PEM."""

    target: str
    ca: Path | None
    certificate: Path | None
    key: Path | None

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A connection to it, closed after the block."""
        from digit_client.tfserving.model_server import ModelServer

        server = ModelServer(self.target, self._credentials())
        try:
            yield server
        finally:
            server.close()

    def _credentials(self) -> Any:
        import grpc

        if bool(self.certificate) != bool(self.key) or (self.certificate and not self.ca):
            raise click.UsageError("--certificate and --key go together, and with --ca")
        if not self.ca:
            return None
        own = (path.read_bytes() for path in (self.key, self.certificate) if path)
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), *own)


def address_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command these options, and what they say as its parameter `server`, an Address."""

    @functools.wraps(command)
    def with_server(
        target: str, ca: Path | None, certificate: Path | None, key: Path | None, **others: Any
    ) -> None:
        command(server=Address(target, ca, certificate, key), **others)

    for option in reversed(_OPTIONS):
        with_server = option(with_server)
    return with_server
