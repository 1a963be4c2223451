"""`digits up`: the command. Its module `stack` is imported when it runs."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import click

from digit_serving.commands import click_errors, models_option, option
from digit_serving.errors import DigitServingError
from digit_serving.ports import DEFAULTS, Ports

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
    from digit_serving.stack import run

    ports = Ports(**options)
    with click_errors():
        if conflict := ports.conflict():
            raise DigitServingError(conflict)
        if os.environ.get("DIGITS_TLS_CERTIFICATE"):
            raise DigitServingError(
                "DIGITS_TLS_CERTIFICATE is set, but `digits up` serves without TLS; unset it, or run `digits "
                "gateway` beside a model server"
            )
        run(root, ports, empty)
