"""`digits up`: the command. Its modules are imported when it runs."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from digit_serving.commands import click_errors, models_option, option

_port = partial(option, type=click.IntRange(1, 65535))


@click.command()
@models_option
@option("--host", default="127.0.0.1", envvar="DIGITS_HOST", help="Gateway's address.")
@_port("--port", "gateway", default=8080, envvar="DIGITS_PORT", help="Gateway's port.")
@_port("--grpc-port", "grpc", default=8500, envvar="DIGITS_GRPC_PORT", help="Model server's gRPC port.")
@_port("--rest-port", "rest", default=8501, envvar="DIGITS_REST_PORT", help="Model server's REST port.")
def up(root: Path, **addresses: Any) -> None:
    """Run the model server and the gateway until Ctrl-C."""
    from digit_serving.processes import ProcessGroup
    from digit_serving.stack import Ports, Readiness, Stack, prepared

    ports = Ports(**addresses)
    with click_errors():
        ports.check()
        with prepared(root, click.echo) as folder, ProcessGroup() as group:
            stack, started = Stack.of_folder(folder, ports), time.monotonic()
            program = stack.start(group)
            readiness = Readiness(ports.url, click.echo)
            if not group.wait(readiness.check):
                return
            click.echo(f"Model server  http://127.0.0.1:{ports.rest}/v1/models/{stack.default_name}  (REST)")
            click.echo(f"              127.0.0.1:{ports.grpc}  (gRPC; {program})")
            click.echo(f"Gateway       {ports.url}")
            if len(stack.names) > 1:
                click.echo(f"Models        {', '.join(stack.names)}; default: {stack.default_name}")
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
            group.supervise(partial(click.echo, err=True))
