"""Process group: child processes that start and stop together."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from digit_serving.errors import ProcessDiedError

_GRACE_SECONDS = 10.0
"""Time from SIGTERM to SIGKILL."""
_POLL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 1.0
"""Pause before a process that has ended starts again, which doubles with each run that was not ready."""
_MAX_FAILURES = 5
"""Consecutive runs that were not ready, after which a process is not started again."""


@dataclass(slots=True)
class Child:
    """Process of a group, which can be started again, with additional environment variables.

    Its output goes to the file `log`, or to this process's output streams. `prepare` is called before each
    restart, with True if the process has ended before it was ready.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: IO[bytes] | int | None = None
    prepare: Callable[[bool], object] | None = None
    process: subprocess.Popen[bytes] = field(init=False)
    failures: int = 0

    def start(self) -> None:
        """Start the process, or restart it."""
        # A session of its own keeps Ctrl-C from the child, so that this process stops the children in order.
        self.process = subprocess.Popen(
            _ending_with_parent(self.command),
            env={**os.environ, **self.env},
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
        )

    def died(self) -> ProcessDiedError:
        """Return the error that says how the process has ended."""
        status = self.process.returncode  # negative for a signal
        end = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return ProcessDiedError(f"{self.name} {end}", self.name)


@dataclass(slots=True)
class ProcessGroup:
    """Child processes, stopped in reverse order when one of them fails or this process gets a signal.

    Use the group as a context manager in the main thread. SIGINT, SIGTERM and SIGHUP end `wait` and
    `supervise`, or raise KeyboardInterrupt if `interrupt` is true; leaving the block stops its processes and
    their children. Each process also gets SIGTERM if this process is killed.
    """

    interrupt: bool = False
    poll: Callable[[], object] = lambda: None
    """Called several times a second while the group waits or supervises."""

    _children: list[Child] = field(default_factory=list)
    _stop: bool = False
    """A plain flag, not an Event: a signal handler may run while the main thread holds the Event's lock."""
    _handlers: dict[signal.Signals, object] = field(default_factory=dict)

    def __enter__(self) -> "ProcessGroup":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            _stop_session(child.process)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def start(self, child: Child) -> None:
        """Start a process."""
        child.start()
        self._children.append(child)

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the condition holds (True) or a signal arrives (False).

        Raise ProcessDiedError if a process of the group ends first.
        """
        while not self._stop:
            self.check()
            if until():
                return True
            self._wait()
        return False

    def finish(self) -> None:
        """Wait until all processes end, in a group that interrupts. Raise ProcessDiedError if one fails."""
        for child in self._children:
            if child.process.wait():
                raise child.died()

    def check(self) -> None:
        """Raise ProcessDiedError if a process of the group has ended."""
        for child in self._children:
            if child.process.poll() is not None:
                raise child.died()

    def supervise(self, is_ready: Callable[[], bool], report: Callable[[str], None]) -> None:
        """Start each process that ends again, until a signal arrives; `report` gets a line about it.

        The pause before the start doubles with each consecutive failure. A run is stable once `is_ready`
        holds, however long it takes: a start may fail late. Raise ProcessDiedError after _MAX_FAILURES.
        """
        while not self._stop:
            for child in self._children:
                if child.process.poll() is not None:
                    self._restart(child, report)
            if any(child.failures for child in self._children) and is_ready():
                for child in self._children:
                    child.failures = 0
            self._wait()

    def _wait(self) -> None:
        self.poll()
        time.sleep(_POLL_SECONDS)

    def _restart(self, child: Child, report: Callable[[str], None]) -> None:
        child.failures += 1
        if child.failures == _MAX_FAILURES:
            raise child.died()
        pause = _FIRST_PAUSE_SECONDS * 2 ** (child.failures - 1)
        report(f"The {child.died()}; it starts again in {pause:g} s.")
        # The process's own children may hold its ports.
        _stop_session(child.process)
        end = time.monotonic() + pause
        while not self._stop and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        if not self._stop:
            if child.prepare:
                child.prepare(child.failures > 1)
            child.start()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupt:
            raise KeyboardInterrupt
        self._stop = True


def python_command(*arguments: str) -> list[str]:
    """Return the command `digits …` for this interpreter."""
    return [sys.executable, "-m", "digit_client", *arguments]


def _ending_with_parent(command: Sequence[str]) -> list[str]:
    """Return a command that also ends when its parent is killed, and its standard input, a pipe, is closed.

    A shell becomes the command, under the same process ID. A second shell waits for the end of the pipe.
    """
    script = """exec 3<&0 </dev/null; sh -c 'read -r _ <&3; kill "$0"' $$ & exec "$@" 3<&-"""
    return ["sh", "-c", script, "sh", *command]


def _stop_session(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    # The child's own children may outlive the child.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.stdin:
        child.stdin.close()
