"""`digits up`: the command. Its modules are imported when it runs."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from digit_serving.commands import click_errors, models_option

_PORT = click.IntRange(1, 65535)


def _option(flag: str, name: str, default: str | int, text: str) -> Callable[..., Any]:
    variable = f"DIGITS_{flag.strip('-').replace('-', '_').upper()}"
    kind = _PORT if isinstance(default, int) else str
    return click.option(
        flag,
        name,
        default=default,
        type=kind,
        help=text,
        show_default=True,
        envvar=variable,
        show_envvar=True,
    )


@click.command()
@models_option
@_option("--host", "host", "127.0.0.1", "Gateway's address.")
@_option("--port", "gateway", 8080, "Gateway's port.")
@_option("--grpc-port", "grpc", 8500, "Model server's gRPC port.")
@_option("--rest-port", "rest", 8501, "Model server's REST port.")
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
