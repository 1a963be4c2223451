"""Process group: exits, signals and environments of its processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from digit_serving import processes
from digit_serving.errors import ProcessDiedError
from digit_serving.processes import Child, ProcessGroup
from tests.processes import wait_until

SLEEP = ["sleep", "60"]


def is_running(pid: int) -> bool:
    """True if the process exists and is not a zombie, as an orphan is until its new parent reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ignoring_sigint(path: Path) -> list[str]:
    """Command that ignores SIGINT, starts a child and writes the child's process ID to the path."""
    return ["sh", "-c", f"trap '' INT; sleep 60 & echo $! > {path}; wait"]


@pytest.mark.parametrize(
    ("script", "end"),
    [("exit $DIGITS_PORT", "ended with status 42"), ("kill -KILL $$", "was killed by SIGKILL")],
)
def test_wait_raises_when_a_process_ends_and_stops_the_others(script: str, end: str) -> None:
    started = time.monotonic()
    with ProcessGroup() as group:
        group.start(Child("process 0", SLEEP, {}))
        group.start(Child("process 1", ["sh", "-c", script], {"DIGITS_PORT": "42"}))
        with pytest.raises(ProcessDiedError, match=f"process 1 {end}"):
            group.wait()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_wait_and_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    path = tmp_path / "pid"
    with ProcessGroup() as group:
        group.start(Child("parent", ignoring_sigint(path), {}))
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"), seconds=10)
        grandchild = int(path.read_text())
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        assert group.wait() is False
        assert is_running(grandchild)
    wait_until(lambda: not is_running(grandchild), seconds=2)
    assert signal.getsignal(number) is before


def test_signal_at_any_line_ends_the_wait() -> None:
    """Python runs handlers between any two lines, also while a lock is held."""
    code = """
import signal, sys
from digit_serving.processes import ProcessGroup

for last in range(1, 15):
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


def test_signal_interrupts_the_block_if_asked_to() -> None:
    def interrupted() -> None:
        with ProcessGroup(interrupt=True) as group:
            group.start(Child("sleep", SLEEP, {}))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def supervise(
    script: str,
    report: Callable[[str], None],
    *,
    is_ready: bool = False,
    prepare: Callable[[bool], object] | None = None,
) -> None:
    """Supervise a shell script."""
    with ProcessGroup() as group:
        group.start(Child("script", ["sh", "-c", script], {}, prepare=prepare))
        group.supervise(lambda: is_ready, report)


def terminate(_report: str = "") -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_supervise_starts_a_killed_process_again_until_a_signal(tmp_path: Path) -> None:
    reports: list[str] = []
    script = f"mkdir {tmp_path / 'started'} 2>&- && kill -KILL $$; kill -TERM {os.getpid()}; sleep 60"
    supervise(script, reports.append)
    assert reports == ["The script was killed by SIGKILL; it starts again in 1 s."]


@pytest.mark.parametrize(("is_ready", "pauses"), [(False, [0.1, 0.2]), (True, [0.1, 0.1, 0.1])])
def test_supervise_doubles_the_pause_after_each_run_that_was_not_ready(
    monkeypatch: pytest.MonkeyPatch, is_ready: bool, pauses: list[float]
) -> None:
    monkeypatch.setattr(processes, "_FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(processes, "_MAX_FAILURES", 3)
    reports: list[str] = []
    failed: list[bool] = []

    def stop_at_third(report: str) -> None:
        reports.append(report)
        if len(reports) == 3:
            terminate()

    with nullcontext() if is_ready else pytest.raises(ProcessDiedError, match="script ended"):
        supervise("exit 3", stop_at_third, is_ready=is_ready, prepare=failed.append)
    assert failed == [False, not is_ready]
    assert reports == [f"The script ended with status 3; it starts again in {each} s." for each in pauses]


def test_signal_in_the_pause_starts_nothing(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    supervise(f"echo >> {starts}", terminate)
    assert starts.read_text() == "\n"


def test_killed_parent_takes_its_processes_along(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    code = f"""
from digit_serving.processes import Child, ProcessGroup
with ProcessGroup() as group:
    group.start(Child("sleep", ["sh", "-c", "echo $$ > {path}; exec sleep 60"], {{}}))
    group.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), seconds=10)
    child = int(path.read_text())
    assert is_running(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_running(child), seconds=10)
