"""`digits model-server`: the command line of the drop-in, and its signals."""

import os
import signal
import time
from collections.abc import Callable
from importlib.metadata import packages_distributions, version
from threading import Thread
from typing import NoReturn

import click

from digit_serving.model_server import flags


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def model_server(arguments: tuple[str, ...]) -> None:
    """Serve SavedModels like tensorflow_model_server.

    The flags are the same; --host is added.
    """
    if "--help" in arguments:
        click.echo(flags.help_text())
        return
    try:
        options = flags.parse(arguments)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if options.version:
        # The package is tensorflow or tensorflow-cpu. Its metadata is read, since an import takes seconds.
        number = version(packages_distributions()["tensorflow"][0])
        click.echo(f"TensorFlow ModelServer: {number}\nTensorFlow Library: {number}")
    else:
        _serve(options)


def _serve(options: flags.Options) -> NoReturn:
    """Serve until SIGTERM or SIGINT, which end the process with status 0, also while a model loads.

    Python runs signal handlers in the main thread, between its instructions, whichever thread the kernel
    delivers the signal to. The main thread therefore waits in short sleeps, and another one loads the models.
    """
    stops: list[Callable[[], None]] = []
    signals = signal.SIGTERM, signal.SIGINT

    def stop(*_: object) -> NoReturn:
        # Ignore further signals: one would enter this handler again while it holds locks.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        try:
            for each in stops:
                each()
        finally:
            os._exit(0)  # sys.exit would wait for worker threads

    # The handlers come first: importing TensorFlow takes seconds and starts threads.
    for number in signals:
        signal.signal(number, stop)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow turns oneDNN off on CPUs without AVX-512, though it halves the reader's time there too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    from digit_serving.model_server.server import serve

    Thread(target=lambda: stops.append(serve(options)), daemon=True).start()
    while True:
        time.sleep(0.1)
