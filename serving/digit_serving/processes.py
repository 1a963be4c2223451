"""Processes that live and die together."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1


class ProcessDiedError(Exception):
    """A process of the group ended by itself."""


@dataclass(slots=True)
class ProcessGroup:
    """Child processes, stopped last to first when one dies or this process is told to stop.

    Use it as a context manager in the main thread: inside, SIGINT, SIGTERM and SIGHUP ask it to stop; after
    it, none of its processes, nor of theirs, is left.
    """

    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stop: bool = False
    """Not an event: a signal may come while the main thread holds the lock of that, and wants it then."""
    _handlers: dict[signal.Signals, object] = field(default_factory=dict)

    def __enter__(self) -> "ProcessGroup":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children.values()):
            _end(child)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a process. Its output goes where this process's does."""
        # In a session of its own, Ctrl-C reaches it through this process only, in the right order.
        self._children[name] = subprocess.Popen(
            command, env={**os.environ, **env}, start_new_session=True, stdin=subprocess.DEVNULL
        )

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the condition holds (True) or somebody asks to stop (False).

        Raises ProcessDiedError when a process ends before.
        """
        while not self._stop:
            for name, child in self._children.items():
                if child.poll() is not None:
                    raise ProcessDiedError(f"{name} {_fate(child.returncode)}")
            if until():
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True


def python_command(*arguments: str) -> list[str]:
    """`digits …` under this interpreter."""
    return [sys.executable, "-m", "digit_client", *arguments]


def _fate(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    # What it started itself and left behind.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
