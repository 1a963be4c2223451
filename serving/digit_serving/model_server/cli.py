"""`digits model-server`: the command line of the drop-in, and its signals."""

import os
import signal
from collections.abc import Callable
from importlib.metadata import packages_distributions, version
from threading import Thread

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
        # TensorFlow itself or tensorflow-cpu; importing it takes seconds.
        number = version(packages_distributions()["tensorflow"][0])
        click.echo(f"TensorFlow ModelServer: {number}\nTensorFlow Library: {number}")
    else:
        # The signal handlers come first: importing TensorFlow takes seconds and starts threads.
        shutdown = ShutdownListener()
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from digit_serving.model_server.server import serve

        shutdown.stop = serve(options)
        shutdown.join()


class ShutdownListener(Thread):
    """Thread that waits for SIGTERM or SIGINT, calls `stop` and exits with 0, also while a model loads.

    Construct it in the main thread. `signal.set_wakeup_fd` works whichever thread the kernel delivers the
    signal to. A Python handler alone would run only when the main thread returns to Python code, and the main
    thread may be waiting for a model. `sigwait` would need the signals blocked in every thread, and OpenBLAS
    starts threads when NumPy is imported.
    """

    def __init__(self) -> None:
        super().__init__(name="shutdown", daemon=True)
        self.stop: Callable[[], None] = lambda: None
        self._wakeup, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self.start()

    def run(self) -> None:
        """Wait for the signal."""
        os.read(self._wakeup, 1)
        try:
            self.stop()
        finally:
            os._exit(0)  # sys.exit would wait for worker threads
