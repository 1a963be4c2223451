"""Faults of the models folder and of models.config."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digit_training import shipped
from tests.e2e.operator.faults.conftest import Serve, Service
from tests.processes import DIGITS, ORIGINAL, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.original]

# Command that drops root's capabilities to read every file.
DROP_CAPABILITIES = (
    ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.getuid() == 0 else []
)


@pytest.fixture
def folder(models: Path) -> Iterator[Path]:
    """Models folder with version 1, accessible to any user."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        folder = Path(root) / "digits"
        shutil.copytree(models / "1", folder / "1")
        yield folder


def publish_copy(folder: Path, version: int) -> None:
    """Publish a copy of version 1 by an atomic rename."""
    shutil.copytree(folder / "1", folder / "new").rename(folder / str(version))


def wait_until_served(service: Service, version: int) -> None:
    wait_until(lambda: service.version() == version)


def wait_until_failed(service: Service, version: int) -> None:
    """Wait until the model server has logged that the version failed to load."""
    message = f"version: {version}}} failed".encode()
    wait_until(lambda: message in service.log.read_bytes())


def test_models_folder_moved_away_and_deleted_versions_are_served_when_back(
    serve: Serve, folder: Path
) -> None:
    service = serve(folder=folder)
    away = folder.parent / "away"
    with service.callers() as callers:
        for version in (1, 2):
            folder.rename(away)
            time.sleep(2)
            # Loaded versions stay served.
            assert callers.statuses() == {200}
            if version != 1:
                (away / "1").rename(away / str(version))
            away.rename(folder)
            wait_until_served(service, version)
    assert callers.statuses() == {200}
    with service.callers() as callers:
        (folder / "2").rename(folder.parent / "2")
        wait_until(lambda: not service.is_ready)
        time.sleep(1)
        (folder.parent / "2").rename(folder / "2")
        service.wait_until_ready()
        recovered = time.monotonic()
        time.sleep(1)
    assert callers.statuses() == {200, 503}
    assert callers.statuses(since=recovered) == {200}


def _half_copied(version: Path) -> None:
    version.mkdir()
    shutil.copy(version.parent / "1" / "saved_model.pb", version)


def _truncated_weights(version: Path) -> None:
    shutil.copytree(version.parent / "1", version)
    for part in (version / "variables").glob("variables.data*"):
        os.truncate(part, part.stat().st_size // 2)


def _random_bytes(version: Path) -> None:
    version.mkdir()
    (version / "saved_model.pb").write_bytes(os.urandom(10_000))


def _empty(version: Path) -> None:
    version.mkdir()


def _unreadable(version: Path) -> None:
    shutil.copytree(version.parent / "1", version)
    version.chmod(0)


def test_models_folder_broken_version_keeps_older_version(serve: Serve, folder: Path) -> None:
    service = serve(folder=folder, model_server=False)
    service.start_model_server(DROP_CAPABILITIES)
    service.wait_until_ready()
    good = 1
    with service.callers() as callers:
        # TensorFlow Serving loads a version without its variables; docs/reference/drop-in.md names it.
        incomplete = [] if ORIGINAL else [_half_copied]
        for publish in (*incomplete, _truncated_weights, _random_bytes, _empty, _unreadable):
            broken, repaired = good + 1, good + 2
            publish(folder / f"{broken}")
            wait_until_failed(service, broken)
            assert service.is_ready
            assert service.version() == good
            (folder / f"{broken}").chmod(0o755)
            publish_copy(folder, repaired)
            wait_until_served(service, repaired)
            good = repaired
    assert callers.statuses() == {200}


def test_export_full_disk_publishes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    shipped.load_classifier().save(file)
    (tmp_path / "disk").mkdir()
    export = " ".join([*DIGITS, "export", str(file), "--models", "models", "--force"])
    done = run_on_small_disk("300k", export, tmp_path / "disk")
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].split()[1:] in ([], [".models.lock", "digits"])


def run_on_small_disk(size: str, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a file system of this size, in a mount namespace; print the models."""
    script = (
        f"mount -t tmpfs -o size={size} none . && cd $PWD && {command}; status=$?; "
        "echo Models: $(ls -A models); cat models/models.config; exit $status"
    )
    wrapped = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    return subprocess.run(wrapped, cwd=folder, capture_output=True, text=True)
