"""The versions on the disk."""

import subprocess
import sys
from pathlib import Path

import pytest

from digit_serving.releases.versions import Published, clear, published
from tests.processes import wait_until
from tests.serving.releases.conftest import Service


@pytest.fixture
def version(tmp_path: Path) -> Published:
    extra = tmp_path / "1" / "assets.extra"
    extra.mkdir(parents=True)
    (extra / "model.json").write_text('{"accuracy": 0.5}')
    (tmp_path / "1" / "saved_model.pb").write_bytes(bytes(100))
    return Published(1, tmp_path / "1")


def test_versions_are_numbers_the_newest_first(tmp_path: Path) -> None:
    for name in ("2", "00010", "9", "canary", "1.5", "-3", "²", ".publishing-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("no folder")
    found = published(tmp_path)
    assert list(found) == [10, 9, 2]
    assert found[10].path == tmp_path / "00010"
    assert published(tmp_path / "none") == {}


def test_card_and_size(version: Published) -> None:
    assert version.card() == {"accuracy": 0.5}
    assert version.size() == 117


@pytest.mark.parametrize("content", ["", "[1]", "\udcff"])
def test_a_card_that_can_not_be_read_is_empty(version: Published, content: str) -> None:
    path = version.path / "assets.extra" / "model.json"
    path.write_text(content, errors="surrogateescape")
    assert version.card() == {}
    path.unlink()
    assert version.card() == {}


def test_a_removed_version_is_gone_at_once_and_all_of_it(version: Published) -> None:
    version.remove()
    assert list(version.path.parent.iterdir()) == []


def test_what_a_killed_removal_leaves_is_no_version_and_can_be_cleared(version: Published) -> None:
    """It is killed when the first file is to be deleted."""
    code = """
import os, signal, sys
from pathlib import Path
from digit_serving.releases.versions import Published
sys.addaudithook(lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event == "os.remove" else None)
Published(1, Path(sys.argv[1])).remove()
"""
    assert subprocess.run([sys.executable, "-c", code, version.path]).returncode == -9
    (leftover,) = version.path.parent.iterdir()
    assert not leftover.name.isdigit()
    assert published(version.path.parent) == {}
    clear(version.path.parent)
    assert list(version.path.parent.iterdir()) == []


def versions(service: Service) -> set[int]:
    return {int(path.name) for path in service.models.iterdir() if path.name.isdigit()}


def test_only_what_nobody_needs_is_removed(service: Service) -> None:
    for version in (4, 5, 6):
        service.add(version)
    # Loaded is 6, then 2 and 3 as well, then 2, the label of which can go back to 3.
    for version in (3, 2):
        assert service.run("promote", version).returncode == 0
    wait_until(lambda: service.loaded() == {2}, seconds=10)
    (service.models / ".removing-0").mkdir()
    done = service.run("prune", "--keep", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.rpartition(",")[0] for line in done.stdout.splitlines()[:-1]] == [
        f"Removed {service.models / version}" for version in ("5", "4", "1")
    ]
    assert done.stdout.endswith("Kept 2, 3, 6.\n")
    assert versions(service) == {2, 3, 6}
    assert not (service.models / ".removing-0").exists()
    assert service.labelled() == 2
    assert service.run("rollback").returncode == 0
    assert service.labelled() == 3


def test_what_the_server_has_loaded_stays_whatever_the_file_says(service: Service) -> None:
    """As between a change and the moment when the server reads it."""
    service.run("promote", 1)
    wait_until(lambda: service.loaded() == {1}, seconds=10)
    with service.config.locked(1):
        service.config.write(service.config.text().replace("versions: 1", "versions: 3"))
        service.config.write(service.config.text().replace("value: 1", "value: 3"))
    assert service.run("prune", "--keep", 1).stdout == f"Removed {service.models / '2'}, 0.8 MB\nKept 1, 3.\n"


def test_a_server_that_can_not_be_asked_keeps_all(published: Service) -> None:
    done = published.run("prune", "--keep", 1)
    assert done.returncode == 1
    assert "the model server at" in done.stderr
    assert versions(published) == {1, 2, 3}


def test_a_folder_that_another_file_rules_keeps_all(service: Service) -> None:
    service.config.path.unlink()
    done = service.run("prune", "--keep", 1)
    assert done.returncode == 1
    assert "there is no" in done.stderr
    assert versions(service) == {1, 2, 3}


@pytest.mark.parametrize("arguments", [["prune"], ["prune", "--keep", "0"]])
def test_how_many_stay_has_to_be_said(published: Service, arguments: list[str]) -> None:
    assert published.run(*arguments).returncode == 2
