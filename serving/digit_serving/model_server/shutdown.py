"""Signal handling: SIGTERM or SIGINT ends the process in any state, also while a model loads."""

import logging
import os
import signal
from collections.abc import Callable
from threading import Thread

log = logging.getLogger(__name__)


class ShutdownListener:
    """Thread that waits for SIGTERM or SIGINT, calls `stop` and exits with 0.

    Construct it in the main thread. `signal.set_wakeup_fd` works whichever thread the kernel delivers the
    signal to. A Python handler alone would run only when the main thread returns to Python code, and the main
    thread may be waiting for a model. `sigwait` would need the signals blocked in every thread, and OpenBLAS
    starts threads when NumPy is imported.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], object] = lambda: None
        self._wakeup, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._thread = Thread(target=self._run, name="shutdown", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Block until the process ends."""
        self._thread.join()

    def _run(self) -> None:
        os.read(self._wakeup, 1)
        try:
            self.stop()
            log.info("Stopped")
        finally:
            os._exit(0)  # sys.exit would wait for worker threads
