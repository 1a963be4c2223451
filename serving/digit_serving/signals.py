"""Signals reach the main thread, in which Python handles them, whichever thread the kernel gives them to."""

import os
import signal
import threading

# Ignored unless somebody asks for it, as nobody does here.
_WAKE = signal.SIGURG


def wake_main_thread() -> None:
    """From now on, have each signal wake the main thread, which may wait where nothing else does.

    Once in each process, from its main thread.
    """
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(_WAKE, lambda *_: None)
    signal.set_wakeup_fd(wake)
    threading.Thread(target=_pass_on, args=[woken], name="signals", daemon=True).start()


def _pass_on(woken: int) -> None:
    main = threading.main_thread().ident
    while number := os.read(woken, 1):
        if main and number[0] != _WAKE:
            signal.pthread_kill(main, _WAKE)
