"""`digits up`: the command. Its modules are imported when it runs."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from digit_serving.commands import click_errors, models_option

_PORT = click.IntRange(1, 65535)


def _option(name: str, default: Any, kind: Any, text: str) -> Callable[..., Any]:
    variable = f"DIGITS_{name.strip('-').replace('-', '_').upper()}"
    return click.option(
        name, default=default, type=kind, help=text, show_default=True, envvar=variable, show_envvar=True
    )


@click.command()
@models_option
@_option("--host", "127.0.0.1", str, "Gateway's address.")
@_option("--port", 8080, _PORT, "Gateway's port.")
@_option("--grpc-port", 8500, _PORT, "Model server's gRPC port.")
@_option("--rest-port", 8501, _PORT, "Model server's REST port.")
def up(root: Path, host: str, port: int, grpc_port: int, rest_port: int) -> None:
    """Run the model server and the gateway until Ctrl-C."""
    from digit_serving.processes import ProcessGroup
    from digit_serving.stack import Ports, Readiness, Stack, prepared

    ports = Ports(host, port, grpc_port, rest_port)
    with click_errors():
        ports.check()
        with prepared(root, click.echo) as folder, ProcessGroup() as group:
            stack, started = Stack.of_folder(folder, ports), time.monotonic()
            program = stack.start(group)
            readiness = Readiness(ports.url, click.echo)
            if not group.wait(readiness.check):
                return
            click.echo(f"Model server  http://127.0.0.1:{rest_port}/v1/models/{stack.default_name}  (REST)")
            click.echo(f"              127.0.0.1:{grpc_port}  (gRPC; {program})")
            click.echo(f"Gateway       {ports.url}")
            if len(stack.names) > 1:
                click.echo(f"Models        {', '.join(stack.names)}; default: {stack.default_name}")
            click.echo(f"Ready after {time.monotonic() - started:.1f} s. Press Ctrl-C to stop.")
            group.supervise(partial(click.echo, err=True))
