"""`digits model-server`."""

import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import click

from digit_serving.model_server import flags


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def model_server(args: tuple[str, ...]) -> None:
    """Serve SavedModels as tensorflow_model_server does, flag for flag."""
    if {"--help", "-help", "-h"} & set(args):
        click.echo(
            "Flags:\n" + "\n".join(f"  --{name}  {kind.__name__}" for name, kind in flags.TYPES.items())
        )
        return
    try:
        options = flags.parse(args)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if options.version:
        served, runtime = version("tensorflow-serving-api"), version("tensorflow")
        click.echo(f"TensorFlow ModelServer: {served}\nTensorFlow Library: {runtime}")
        return
    _lighten_tensorflow()
    from digit_serving.model_server.server import run

    run(options)


def _lighten_tensorflow() -> None:
    """Keeps `tensorflow/__init__.py` from running: three seconds and 270 MB that nothing here needs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    spec = find_spec("tensorflow")
    stand_in = ModuleType("tensorflow")
    stand_in.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    sys.modules["tensorflow"] = stand_in
