import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from digit_serving.processes import ProcessDiedError, ProcessGroup

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def is_alive(pid: int) -> bool:
    try:
        # A zombie answers as well, but none is left by a group that waits for its children.
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_in(path: Path) -> int:
    end = time.monotonic() + 10
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return int(path.read_text())


def stubborn(path: Path) -> list[str]:
    """A process that writes its number and that of a child of its own, which both outlast SIGINT."""
    code = f"""
import os, signal, subprocess, sys, time, pathlib
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(path)!r}).write_text(str(child.pid))
time.sleep(60)
"""
    return [sys.executable, "-c", code]


def run(*commands: list[str], env: dict[str, str] | None = None) -> None:
    with ProcessGroup() as group:
        for number, command in enumerate(commands):
            group.start(f"process {number}", command, env or {})
        group.wait()


def test_a_death_is_told_and_ends_the_others() -> None:
    started = time.monotonic()
    with pytest.raises(ProcessDiedError, match="process 1 ended with status 3"):
        run(SLEEP, [sys.executable, "-c", "raise SystemExit(3)"])
    assert time.monotonic() - started < 10


def test_a_killed_process_is_told_by_its_signal() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(ProcessDiedError, match="process 0 was killed by SIGKILL"):
        run([sys.executable, "-c", code])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_and_their_children(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with ProcessGroup() as group:
        group.start("it", stubborn(tmp_path / "pid"), {})
        grandchild = pid_in(tmp_path / "pid")
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        assert group.wait() is False
        assert is_alive(grandchild)
    assert not _lives_on(grandchild)
    assert signal.getsignal(number) is before


def test_a_signal_ends_the_wait_whatever_it_interrupts() -> None:
    """Python runs handlers between any two lines, also while a lock is held that they might want."""
    code = """
import signal, sys
from digit_serving.processes import ProcessGroup

for last in range(1, 25):
    lines = iter(range(last))

    def trace(frame, event, argument):
        if event == "line" and next(lines, None) == last - 1:
            signal.raise_signal(signal.SIGTERM)
        return trace

    with ProcessGroup() as group:
        sys.settrace(trace)
        group.wait()
        sys.settrace(None)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_it_waits_for_what_it_is_told_to() -> None:
    started = time.monotonic()
    with ProcessGroup() as group:
        group.start("it", SLEEP, {})
        assert group.wait(lambda: time.monotonic() > started + 0.3) is True


def test_processes_get_their_environment() -> None:
    code = "import os; raise SystemExit(int(os.environ['DIGITS_PORT']))"
    with pytest.raises(ProcessDiedError, match="status 42"):
        run([sys.executable, "-c", code], env={"DIGITS_PORT": "42"})


def _lives_on(pid: int) -> bool:
    """An orphan that was killed may stay a zombie until somebody reaps it."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True
