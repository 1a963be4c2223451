"""`digits model-server`."""

import os
from importlib.metadata import version

import click

from digit_serving.model_server import flags
from digit_serving.model_server.shutdown import Shutdown


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.option("--host", default="")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def model_server(args: tuple[str, ...], host: str) -> None:
    """Serve SavedModels as tensorflow_model_server does, flag for flag.

    --host is none of its flags: the address to listen on in place of all.
    """
    try:
        options = flags.parse([arg for arg in args if arg != "--help"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if "--help" in args:
        click.echo("--host=\tstring")
        click.echo("\n".join("--{flag}={default}\t{type}".format(**flag) for flag in flags.table().values()))
    elif options.version:
        click.echo("TensorFlow ModelServer: {0}\nTensorFlow Library: {0}".format(version("tensorflow")))
    else:
        _serve(options, host)


def _serve(options: flags.Options, host: str) -> None:
    shutdown = Shutdown()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow takes seconds to import, and starts threads.
    from digit_serving.model_server.server import run

    run(options, host, shutdown)
