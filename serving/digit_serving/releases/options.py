"""Options that commands of `digits models` share, and the connections that they stand for."""

import functools
import typing
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import digit_client
from digit_client.command_options import Command, adding
from digit_core.artifact import addresses
from digit_core.artifact.addresses import Address
from digit_serving.commands import POSITIVE, click_errors, models_option, option
from digit_serving.errors import DigitServingError, NoServiceError, SettingError

if typing.TYPE_CHECKING:
    from digit_core.artifact.models_folder import ModelsFolder
    from digit_serving.releases.promotion import Releases

name_option = click.option(
    "--model", "name", metavar="NAME", help="Name of the model; needed if there are several."
)
_file_option = partial(option, type=click.Path(exists=True, dir_okay=False, path_type=Path))
_ENDPOINT_OPTIONS = (
    option(
        "--model-server",
        "target",
        envvar="DIGITS_MODEL_SERVER",
        help="Model server's gRPC address.  [default: that of `digits up`]",
    ),
    _file_option(
        "--ca",
        envvar="DIGITS_MODEL_SERVER_CA",
        help="Authority of the model server's certificate (PEM): the connection uses TLS.",
    ),
    _file_option("--certificate", envvar="DIGITS_MODEL_SERVER_CERTIFICATE", help="Client certificate (PEM)."),
    _file_option("--key", envvar="DIGITS_MODEL_SERVER_KEY", help="Key of this certificate (PEM)."),
)
_CHANGE_OPTIONS = (
    option(
        "--gateway",
        metavar="URL",
        envvar="DIGITS_URL",
        help="Gateway that must answer as well; $DIGITS_API_KEY is its key.",
    ),
    option("--timeout", default=60.0, type=POSITIVE, help="Seconds to wait for each step of the service."),
    click.option("--offline", is_flag=True, help="Change the folder only, and wait for no service."),
    click.option("--force", is_flag=True, help="Rewrite a models.config that Digits did not write."),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Model server that options name: its gRPC address, and the files of a connection with TLS."""

    target: str | None
    ca: Path | None
    certificate: Path | None
    key: Path | None

    @contextmanager
    def connected(self, root: Path) -> Iterator[tuple[Any, Address]]:
        """Yield a Connection, and its address: the given one, or that of `digits up` with a models folder.

        Raise SettingError for an incomplete set of TLS files, and NoServiceError without an address: what
        listens on the default port may serve another folder.
        """
        import grpc

        from digit_core.tfserving.connection import Connection

        if bool(self.certificate) != bool(self.key) or (self.certificate and not self.ca):
            raise SettingError("--certificate needs --key and --ca, and --key needs --certificate")
        if self.target:
            source = click.get_current_context().get_parameter_source("target")
            is_variable = source is ParameterSource.ENVIRONMENT
            address = Address(self.target, "DIGITS_MODEL_SERVER" if is_variable else "--model-server")
        elif not (address := addresses.find(root, "model_server", "")).value:
            raise NoServiceError(
                f"no `digits up` is running with {root}: start it with `digits up --models {root}`, or name "
                "a model server with --model-server"
            )
        credentials = None
        if self.ca:
            pair = (path.read_bytes() for path in (self.key, self.certificate) if path)
            credentials = grpc.ssl_channel_credentials(self.ca.read_bytes(), *pair)
        with closing(Connection(address.value, credentials)) as server:
            yield server, address


@dataclass(frozen=True, slots=True)
class ChangeOptions(Endpoint):
    """Options of a command that changes what is served."""

    folder: "ModelsFolder"
    name: str | None
    gateway: str | None
    timeout: float
    offline: bool
    force: bool

    @contextmanager
    def releases(self) -> Iterator["Releases"]:
        """Connect to the services for the block."""
        from digit_core.errors import DigitError
        from digit_serving.releases.promotion import Releases

        folder, name = self.folder, self.folder.choose(self.name)
        if self.offline:
            yield Releases(folder, name, click.echo, force=self.force)
            return
        with ExitStack() as stack:
            try:
                server, address = stack.enter_context(self.connected(folder.root))
            except NoServiceError as error:
                raise NoServiceError(f"{error}, or change the folder only with --offline") from error
            gateway = None
            if self.gateway:
                try:
                    gateway = stack.enter_context(digit_client.Client(self.gateway, model=name))
                except ValueError as error:
                    raise SettingError(str(error)) from error
            words = f"the model server at {address}"
            try:
                yield Releases(folder, name, click.echo, server, gateway, self.timeout, words, self.force)
            except DigitError as error:
                raise DigitServingError(address.explain(error)) from error


def folder_option(command: Command) -> Command:
    """Add --models to the command, and pass the folder; turn expected errors into click's."""

    @functools.wraps(command)
    def with_folder(root: Path, **others: Any) -> None:
        from digit_core.artifact.models_folder import ModelsFolder

        with click_errors():
            command(folder=ModelsFolder(root), **others)

    return models_option(with_folder)


def model_options(command: Command) -> Command:
    """Add --models and --model to the command; pass the folder and the name of a model that it has."""

    @functools.wraps(command)
    def with_model(folder: "ModelsFolder", name: str | None, **others: Any) -> None:
        command(folder=folder, name=folder.choose(name), **others)

    return folder_option(name_option(with_model))


endpoint_options = adding(*_ENDPOINT_OPTIONS)
"""Options of `Endpoint`."""
change_options = adding(folder_option, name_option, *_CHANGE_OPTIONS, *_ENDPOINT_OPTIONS)
"""Options of `ChangeOptions`."""
removal_options = adding(folder_option, *_CHANGE_OPTIONS, *_ENDPOINT_OPTIONS)
"""Options of `ChangeOptions`, except the model's name."""
