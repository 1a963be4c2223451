"""Options that commands of `digits models` share, and the objects that they stand for."""

import functools
import json
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import click
from click.core import ParameterSource

from digit_core.artifact import addresses
from digit_core.artifact.addresses import Address
from digit_serving.commands import POSITIVE, click_errors, models_option, option
from digit_serving.errors import DigitServingError, SettingError

if typing.TYPE_CHECKING:
    from digit_serving.releases.promotion import Releases

Command = Callable[..., None]

name_option = click.option(
    "--model", "name", metavar="NAME", help="Name of the model; needed if there are several."
)
_DEFAULT_TARGET = "127.0.0.1:8500"
_file_option = partial(option, type=click.Path(exists=True, dir_okay=False, path_type=Path))
_ENDPOINT_OPTIONS = (
    option(
        "--model-server",
        "target",
        envvar="DIGITS_MODEL_SERVER",
        help=f"Model server's gRPC address.  [default: that of `digits up`, else {_DEFAULT_TARGET}]",
    ),
    _file_option(
        "--ca",
        envvar="DIGITS_MODEL_SERVER_CA",
        help="Authority of the model server's certificate (PEM): the connection uses TLS.",
    ),
    _file_option(
        "--certificate",
        envvar="DIGITS_MODEL_SERVER_CERTIFICATE",
        help="Client certificate (PEM).",
    ),
    _file_option("--key", envvar="DIGITS_MODEL_SERVER_KEY", help="Key of this certificate (PEM)."),
)
_CHANGE_OPTIONS = (
    option(
        "--gateway",
        metavar="URL",
        envvar="DIGITS_URL",
        help="Gateway that has to answer as well; $DIGITS_API_KEY is its key.",
    ),
    option("--timeout", default=60.0, type=POSITIVE, help="Seconds to wait for each step of the service."),
    click.option("--offline", is_flag=True, help="Wait for no service."),
    click.option("--force", is_flag=True, help="Rewrite a models.config that Digits did not write."),
)
_JOB_OPTIONS = (
    click.option(
        "--job",
        is_flag=True,
        help="Print a Kubernetes Job that does this, for kubectl apply -f -",
    ),
    click.option("--image", help="Image of the Job.  [default: digits-gateway of this release]"),
)


@dataclass(frozen=True)
class Endpoint:
    """Address of a model server, None if no option or variable gives it, and the PEM files for TLS."""

    target: str | None
    ca: Path | None
    certificate: Path | None
    key: Path | None

    def address(self, root: Path) -> Address:
        """Return the given address, else that of `digits up` with the models folder, else the default one."""
        if self.target:
            source = click.get_current_context().get_parameter_source("target")
            is_variable = source is ParameterSource.ENVIRONMENT
            return Address(self.target, "DIGITS_MODEL_SERVER" if is_variable else "--model-server")
        return addresses.find(root, "model_server", _DEFAULT_TARGET)

    @contextmanager
    def connect(self, address: Address) -> Iterator[Any]:
        """Open a Connection for the block. Raise SettingError for an incomplete set of TLS files."""
        from digit_core.tfserving.connection import Connection

        server = Connection(address.value, self._credentials())
        try:
            yield server
        finally:
            server.close()

    def _credentials(self) -> Any:
        import grpc

        if bool(self.certificate) != bool(self.key) or (self.certificate and not self.ca):
            raise SettingError("--certificate needs --key and --ca, and --key needs --certificate")
        if not self.ca:
            return None
        pair = (path.read_bytes() for path in (self.key, self.certificate) if path)
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), *pair)


@dataclass(frozen=True)
class Change:
    """Options of a command that changes what is served."""

    root: Path
    name: str | None
    endpoint: Endpoint
    gateway: str | None
    timeout: float
    offline: bool
    force: bool

    @contextmanager
    def releases(self) -> Iterator["Releases"]:
        """Connect to the services for the block."""
        from digit_client import Client
        from digit_core.artifact.models_folder import ModelsFolder
        from digit_core.errors import DigitError
        from digit_serving.releases.promotion import Releases, Service

        with click_errors(), ExitStack() as stack:
            folder = ModelsFolder(self.root)
            name = folder.choose(self.name)
            if self.offline:
                yield Releases(folder, name, None, click.echo, self.force)
                return
            address = self.endpoint.address(self.root)
            server, gateway = stack.enter_context(self.endpoint.connect(address)), None
            try:
                if self.gateway:
                    gateway = stack.enter_context(Client(self.gateway, model=name))
            except ValueError as error:
                raise SettingError(str(error)) from error
            service = Service(name, server, gateway, self.timeout, f"the model server at {address}")
            try:
                yield Releases(folder, name, service, click.echo, self.force)
            except DigitError as error:
                raise DigitServingError(address.explain(error)) from error


def model_options(command: Command) -> Command:
    """Add --models and --model to the command; pass the folder and the model's name that they stand for."""

    @functools.wraps(command)
    def with_model(root: Path, name: str | None, **others: Any) -> None:
        from digit_core.artifact.models_folder import ModelsFolder

        with click_errors():
            folder = ModelsFolder(root)
            command(folder=folder, name=folder.choose(name), **others)

    return models_option(name_option(with_model))


def endpoint_options(command: Command) -> Command:
    """Add the options of a connection to the command, and pass an Endpoint to its parameter `endpoint`."""
    return _with_object(command, "endpoint", Endpoint, _ENDPOINT_OPTIONS)


def change_options(command: Command) -> Command:
    """Add the options of a change to the command, and pass a Change to its parameter `change`."""
    return _with_object(
        command, "change", Change, (models_option, name_option, *_CHANGE_OPTIONS, endpoint_options)
    )


def removal_options(command: Command) -> Command:
    """Add the options of a change to the command of the model that its argument names."""
    options = (click.argument("name"), models_option, *_CHANGE_OPTIONS, endpoint_options)
    return _with_object(command, "change", Change, options)


def job_options(command: Command) -> Command:
    """Add --job and --image to a command that changes a label; with --job, print the Job in its place."""

    @functools.wraps(command)
    def with_job(job: bool, image: str | None, change: Change, **others: Any) -> None:
        if not job:
            command(change=change, **others)
            return
        arguments = [str(others["number"])] if "number" in others else []
        arguments += ["--version-label", others["label"]]
        arguments += ["--model", change.name] if change.name else []
        arguments += ["--force"] if change.force else []
        click.echo(format_job(command.__name__, arguments, image), nl=False)

    return _add(with_job, _JOB_OPTIONS)


def format_job(command: str, arguments: Sequence[str], image: str | None) -> str:
    """Return the manifest of a Job that runs `digits models promote` or `rollback`, for `kubectl apply`.

    Its name has the time, since a Job runs once.
    """
    template = Template(files("digit_serving.releases").joinpath("job.yaml").read_text())
    return template.substitute(
        name=f"{command}-{datetime.now(UTC):%Y%m%d-%H%M%S}",
        image=image or f"digits-gateway:{version('digits')}",
        command=json.dumps(["digits", "models", command, *arguments]),
    )


def _with_object(
    command: Command, parameter: str, kind: type, options: Sequence[Callable[[Command], Command]]
) -> Command:
    """Add options to the command, and pass their values as one dataclass to the parameter."""

    @functools.wraps(command)
    def with_object(**values: Any) -> None:
        made = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        command(**{parameter: made}, **values)

    return _add(with_object, options)


def _add(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for add in reversed(options):
        command = add(command)
    return command
