"""`digits model-server`: the command line of the drop-in."""

import os
from importlib.metadata import packages_distributions, version

import click

from digit_serving.model_server import flags
from digit_serving.model_server.shutdown import ShutdownListener


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.option("--host", default="")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def model_server(args: tuple[str, ...], host: str) -> None:
    """Serve SavedModels like tensorflow_model_server.

    The flags are the same; --host is added.
    """
    try:
        options = flags.parse([arg for arg in args if arg != "--help"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if "--help" in args:
        click.echo("--host=\tstring\taddress to listen on instead of every address")
        for flag in flags.table().values():
            note = "" if flag["supported"] == "yes" else "\tignored"
            click.echo("--{flag}={default}\t{type}".format(**flag) + note)
    elif options.version:
        # TensorFlow itself or tensorflow-cpu; importing it takes seconds.
        number = version(packages_distributions()["tensorflow"][0])
        click.echo(f"TensorFlow ModelServer: {number}\nTensorFlow Library: {number}")
    else:
        # The signal handlers come first: importing TensorFlow takes seconds and starts threads.
        shutdown = ShutdownListener()
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from digit_serving.model_server.server import run

        run(options, host, shutdown)
