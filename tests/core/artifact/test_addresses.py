"""Addresses that `digits up` records in its models folder."""

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from digit_core.artifact import addresses
from digit_core.artifact.addresses import Address, Addresses, recorded

ADDRESSES = Addresses("http://127.0.0.1:8081", "127.0.0.1:8502", "digits")
HOLD = """
import sys, time
from pathlib import Path
from digit_core.artifact.addresses import Addresses, recorded
with recorded(Path(sys.argv[1]), Addresses("http://127.0.0.1:1", "127.0.0.1:2", "digits")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_recorded_addresses_are_found_until_the_end_of_the_block(tmp_path: Path) -> None:
    with recorded(tmp_path, ADDRESSES):
        assert addresses.read(tmp_path) == ADDRESSES
        found = addresses.find(tmp_path, "model_server", "127.0.0.1:8500")
        assert found == Address("127.0.0.1:8502", f"that of `digits up` with {tmp_path}")
    assert list(tmp_path.iterdir()) == []
    assert addresses.find(tmp_path, "gateway", "http://a") == Address("http://a", "the default")


def test_record_of_a_killed_process_is_ignored(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert addresses.read(tmp_path) == Addresses("http://127.0.0.1:1", "127.0.0.1:2", "digits")
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == [".digits-up.json"]
    assert addresses.read(tmp_path) is None


def test_record_of_a_later_process_stays(tmp_path: Path) -> None:
    with ExitStack() as later:
        with recorded(tmp_path, Addresses("http://127.0.0.1:3", "127.0.0.1:4", "digits")):
            later.enter_context(recorded(tmp_path, ADDRESSES))
        assert addresses.read(tmp_path) == ADDRESSES
    assert addresses.read(tmp_path) is None


def test_folder_that_can_not_be_written_has_no_record(tmp_path: Path) -> None:
    with recorded(tmp_path / "missing", ADDRESSES):
        assert addresses.read(tmp_path / "missing") is None
