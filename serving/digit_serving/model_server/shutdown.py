"""The end of the process at SIGTERM or SIGINT, whatever it is doing."""

import logging
import os
import signal
from collections.abc import Callable
from threading import Thread

log = logging.getLogger(__name__)


class Shutdown:
    """A thread that waits for a signal, calls `stop`, and exits with 0. Construct it in the main thread.

    `set_wakeup_fd` serves whichever thread the kernel gives the signal to. A Python handler would have to
    wait for the main thread, which may be waiting for a model; blocked signals and `sigwait` would need every
    thread to block them, and OpenBLAS has started some when NumPy is imported.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], object] = lambda: None
        self._wakeup, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._thread = Thread(target=self._wait, name="shutdown", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the process."""
        self._thread.join()

    def _wait(self) -> None:
        os.read(self._wakeup, 1)
        try:
            self.stop()
            log.info("Stopped")
        finally:
            os._exit(0)  # leaves behind the threads that are still at work
