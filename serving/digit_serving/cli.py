"""`digits up`."""

import time
from pathlib import Path

import click

_PORT = click.IntRange(1, 65535)


@click.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    default=Path("models/digits"),
    show_default=True,
    help="Folder of the model's versions.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The gateway's address.")
@click.option("--port", type=_PORT, default=8080, show_default=True, help="The gateway's port.")
@click.option("--grpc-port", type=_PORT, default=8500, show_default=True, help="The model server's, gRPC.")
@click.option("--rest-port", type=_PORT, default=8501, show_default=True, help="The model server's, REST.")
def up(models: Path, host: str, port: int, grpc_port: int, rest_port: int) -> None:
    """Run the model server and the gateway until Ctrl-C."""
    from digit_serving.processes import ProcessDiedError, ProcessGroup
    from digit_serving.stack import MODEL_NAME, CannotStartError, Stack

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
    except (CannotStartError, ProcessDiedError) as error:
        raise click.ClickException(str(error)) from error
