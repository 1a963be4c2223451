"""Processes that serve, forked from one that has all they need, and replaced where they end."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from mmap import mmap
from multiprocessing.context import ForkProcess
from socket import socket

Beat = Callable[[], None]
Port = tuple[socket, ...]
"""The sockets on which one process listens."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOK_SECONDS = 0.1
_HUNG_LOOKS = 50
_GRACE_SECONDS = 15


class WorkerFailedError(Exception):
    """A process ended before it served, as another one would."""


@dataclass
class _Worker:
    process: ForkProcess
    pulse: mmap
    begun: bool = False
    silent: int = 0

    def is_well(self) -> bool:
        """For who asks at each look."""
        if self.pulse[0]:
            self.pulse[0], self.begun, self.silent = 0, True, 0
        # Looks are counted, not seconds: while the one that looks is stopped, so may be its workers.
        self.silent += 1
        return self.process.is_alive() and self.silent < _HUNG_LOOKS


class Workers:
    """A process for each of the ports, in which `serve` is called with it and a function.

    That is to be called when it serves, and from then on a few times a second: who doesn't for five seconds
    is taken to hang. `serve` is to return at SIGTERM, which also comes where this process is gone. Who waits
    at the sockets of one that ends is left to its successor.
    """

    def __init__(self, ports: Iterable[Port], serve: Callable[[Port, Beat], None]) -> None:
        self._serve = serve
        self._workers: dict[Port, _Worker | None] = dict.fromkeys(ports)
        self._told = False

    def run(self) -> None:
        """Until SIGTERM or SIGINT, from the main thread. Raises WorkerFailedError."""
        for number in _SIGNALS:
            signal.signal(number, self._tell)
        # What is here now stays, so that looking through it would only make copies of shared memory.
        gc.freeze()
        # Answered requests leave nothing to be collected, and those that wait are many to be looked through.
        gc.set_threshold(50_000)
        try:
            while not self._told:
                for port, worker in self._workers.items():
                    if not worker or not worker.is_well():
                        self._workers[port] = self._successor(port, worker)
                time.sleep(_LOOK_SECONDS)
        finally:
            self._end()

    def _tell(self, *_: object) -> None:
        self._told = True

    def _successor(self, port: Port, worker: _Worker | None) -> _Worker:
        if worker:
            worker.process.kill()
            worker.process.join()
            if not worker.begun and not self._told:
                raise WorkerFailedError("a worker process ended before it served anybody")
        pulse = mmap(-1, 1)
        process = multiprocessing.get_context("fork").Process(
            target=self._child, args=[port, pulse, os.getpid()]
        )
        # A signal that comes before the child has handlers of its own would be lost on this one's.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return _Worker(process, pulse)

    def _child(self, port: Port, pulse: mmap, parent: int) -> None:
        def beat() -> None:
            pulse[0] = 1
            if os.getppid() != parent:
                signal.raise_signal(signal.SIGTERM)

        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for other in self._workers:
            if other is not port:
                _close(other)
        self._serve(port, beat)

    def _end(self) -> None:
        processes = [worker.process for worker in self._workers.values() if worker]
        for process in processes:
            process.terminate()
        # Who calls now is to be refused at once.
        for port in self._workers:
            _close(port)
        end = time.monotonic() + _GRACE_SECONDS
        for process in processes:
            process.join(max(0, end - time.monotonic()))
            process.kill()
            process.join()


def _close(port: Port) -> None:
    for opened in port:
        opened.close()
