"""`digits up`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_PORT = click.IntRange(1, 65535)


def _option(name: str, default: Any, kind: Any, text: str) -> Callable[..., Any]:
    variable = f"DIGITS_{name.strip('-').replace('-', '_').upper()}"
    return click.option(
        name, default=default, type=kind, help=text, show_default=True, envvar=variable, show_envvar=True
    )


@click.command()
@_option("--models", Path("models/digits"), click.Path(path_type=Path), "Folder of the model's versions.")
@_option("--host", "127.0.0.1", str, "The gateway's address.")
@_option("--port", 8080, _PORT, "The gateway's port.")
@_option("--grpc-port", 8500, _PORT, "The model server's port for gRPC.")
@_option("--rest-port", 8501, _PORT, "The model server's port for REST.")
def up(models: Path, host: str, port: int, grpc_port: int, rest_port: int) -> None:
    """Run the model server and the gateway until Ctrl-C."""
    from digit_serving.processes import ProcessDiedError, ProcessGroup
    from digit_serving.releases.config import MODEL_NAME
    from digit_serving.releases.errors import ReleaseError
    from digit_serving.stack import CannotStartError, Stack

    stack = Stack(models, host, port, grpc_port, rest_port)
    try:
        stack.check()
        started = time.monotonic()
        with ProcessGroup() as group:
            program = stack.start(group)
            if not group.wait(stack.is_ready):
                return
            click.echo(f"Model server  http://127.0.0.1:{rest_port}/v1/models/{MODEL_NAME}  (REST)")
            click.echo(f"              127.0.0.1:{grpc_port}  (gRPC; {program})")
            click.echo(f"Gateway       {stack.url}")
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Ctrl-C stops it.")
            group.wait()
    except (CannotStartError, ProcessDiedError, ReleaseError) as error:
        raise click.ClickException(str(error)) from error
