"""`digits up`: the command. Its modules are imported when it runs."""

import time
import typing
from functools import partial
from pathlib import Path
from typing import Any

import click

from digit_serving.commands import click_errors, models_option, option
from digit_serving.ports import DEFAULTS, Ports

if typing.TYPE_CHECKING:
    from digit_core.artifact.models_folder import ModelsFolder

_port = partial(option, type=click.IntRange(1, 65535))


@click.command()
@models_option
@option("--host", default=DEFAULTS.host, envvar="DIGITS_HOST", help="Gateway's address.")
@_port("--port", "gateway", default=DEFAULTS.gateway, envvar="DIGITS_PORT", help="Gateway's port.")
@_port(
    "--grpc-port", "grpc", default=DEFAULTS.grpc, envvar="DIGITS_GRPC_PORT", help="Model server's gRPC port."
)
@_port(
    "--rest-port", "rest", default=DEFAULTS.rest, envvar="DIGITS_REST_PORT", help="Model server's REST port."
)
def up(root: Path, **options: Any) -> None:
    """Run the model server and the gateway until Ctrl-C.

    While they run, `digits models`, `predict` and `read` ask them by default, if started beside the folder.
    """
    from digit_serving.errors import DigitServingError, ProcessDiedError
    from digit_serving.stack import MODEL_SERVER, prepared

    ports = Ports(**options)
    with click_errors():
        if conflict := ports.conflict():
            raise DigitServingError(conflict)
        with prepared(root, click.echo) as folder:
            while True:
                try:
                    return _run(root, folder, ports)
                except ProcessDiedError as error:
                    if error.process != MODEL_SERVER:
                        raise
                    click.echo(f"The {error}; loading each version in turn to find the reason ...", err=True)
                    if not folder.prepare(click.echo, load=True):
                        raise


def _run(root: Path, folder: "ModelsFolder", ports: Ports) -> None:
    """Run both services until a signal. Raise ProcessDiedError if one of them can't be kept running."""
    from digit_core.artifact.addresses import Addresses, recorded
    from digit_serving.processes import ProcessGroup
    from digit_serving.stack import choose_default, readiness, served_names, start

    addresses = Addresses(ports.url, f"127.0.0.1:{ports.grpc}")
    with ProcessGroup() as group:
        names, default, started = served_names(folder), choose_default(folder), time.monotonic()
        program = start(group, folder, default, ports, partial(_prepare_again, folder))
        if not group.wait(readiness(ports.url, click.echo)):
            return
        with recorded(root, addresses):
            click.echo(f"Model server  {addresses.model_server}  (gRPC; {program})")
            click.echo(f"              http://127.0.0.1:{ports.rest}/v1/models/{default}  (REST)")
            if len(names) > 1:
                click.echo(f"Models        {', '.join(names)}; default: {default}")
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
            page = ports.url.replace("//127.0.0.1:", "//localhost:")
            click.echo(f"Open {page}: draw or drop a picture")
            group.supervise(partial(click.echo, err=True))


def _prepare_again(folder: "ModelsFolder") -> None:
    """Take out of models.config what has been damaged, unless a promotion holds the lock."""
    from digit_core.artifact.versions import ArtifactError

    try:
        folder.prepare(click.echo, timeout=1)
    except (ArtifactError, OSError) as error:
        click.echo(str(error), err=True)
