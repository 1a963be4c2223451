"""`digits up`: the command. Its modules are imported when it runs."""

import os
import time
import typing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import click

from digit_serving.commands import click_errors, models_option, option
from digit_serving.ports import DEFAULTS, Ports

if typing.TYPE_CHECKING:
    from digit_core.artifact.models_folder import ModelsFolder
    from digit_serving.stack import ServedConfig

_LOCK_PAUSE_SECONDS = 0.5
"""Time between two locks of the models folder, in which a promotion gets it."""
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
@click.option("--empty", is_flag=True, help="Publish nothing into an empty models folder.")
def up(root: Path, empty: bool, **options: Any) -> None:
    """Run the model server and the gateway until Ctrl-C.

    An empty models folder gets the networks that come with this package. With --empty, the service answers
    once a model `digits`, or that of DIGITS_MODEL_NAME, is published.

    While they run, `digits models`, `predict` and `read` ask them by default, if started beside the folder.
    """
    from digit_core.artifact.task_card import READER_NAME
    from digit_serving.errors import DigitServingError, ProcessDiedError
    from digit_serving.stack import MODEL_SERVER, choose_default, prepared, publish_shipped

    ports = Ports(**options)
    with click_errors():
        if conflict := ports.conflict():
            raise DigitServingError(conflict)
        if os.environ.get("DIGITS_TLS_CERTIFICATE"):
            raise DigitServingError(
                "DIGITS_TLS_CERTIFICATE is set, but `digits up` serves without TLS; unset it, or run `digits "
                "gateway` beside a model server"
            )
        if not empty:
            publish_shipped(root, click.echo)
        with prepared(root, click.echo, empty) as folder:
            while True:
                try:
                    return _run(root, folder, ports)
                except ProcessDiedError as error:
                    if error.process != MODEL_SERVER:
                        raise
                    name = choose_default(folder, click.echo)
                    click.echo(
                        f"The {error}; loading each version of {name} to find the reason ...", err=True
                    )
                    if not folder.prepare(click.echo, load=(name, READER_NAME)):
                        raise


def _run(root: Path, folder: "ModelsFolder", ports: Ports) -> None:
    """Run both services until a signal. Raise ProcessDiedError if one of them can't be kept running."""
    from digit_core.artifact.addresses import Addresses, recorded
    from digit_serving.processes import ProcessGroup
    from digit_serving.stack import ServedConfig, choose_default, permitted_models, readiness, start

    started, default = time.monotonic(), choose_default(folder, click.echo)
    addresses = Addresses(ports.url, f"127.0.0.1:{ports.grpc}", default)
    with TemporaryDirectory() as temporary, recorded(root, addresses):
        served = ServedConfig(folder, default, Path(temporary) / "models.config", ports.grpc)
        with ProcessGroup(poll=served.update) as group:
            program = start(group, folder, served, ports, partial(_prepare_again, folder, served))
            is_ready = readiness(ports.url, click.echo)
            if not group.wait(is_ready):
                return
            click.echo(f"Model server  {addresses.model_server}  (gRPC; {program})")
            click.echo(f"              http://127.0.0.1:{ports.rest}/v1/models/{default}  (REST)")
            if len(names := {default, *permitted_models(folder)} - {"*"}) > 1:
                click.echo(f"Models        {', '.join(sorted(names))}; default: {default}, the others follow")
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
            page = ports.url.replace("//127.0.0.1:", "//localhost:")
            click.echo(f"Open {page}: draw or drop a picture")
            Thread(target=_adopt_others, args=[folder], daemon=True).start()
            group.supervise(is_ready, partial(click.echo, err=True))


def _adopt_others(folder: "ModelsFolder") -> None:
    """Enter the models that have no entry. To verify each takes seconds, while the default answers."""
    from digit_core.artifact.versions import ArtifactError

    for name in folder.names():
        try:
            folder.adopt(name, click.echo)
        except (ArtifactError, OSError) as error:
            click.echo(str(error), err=True)
        # Others wait for the lock.
        time.sleep(_LOCK_PAUSE_SECONDS)


def _prepare_again(folder: "ModelsFolder", served: "ServedConfig", has_failed: bool) -> None:
    """Take out of models.config what has been damaged, unless a promotion holds the lock.

    After a start that has failed, the versions that are loaded at the start are loaded in turn, too.
    """
    from digit_core.artifact.versions import ArtifactError

    try:
        folder.prepare(click.echo, load=served.first if has_failed else (), timeout=1)
    except (ArtifactError, OSError) as error:
        click.echo(str(error), err=True)
    served.restart()
