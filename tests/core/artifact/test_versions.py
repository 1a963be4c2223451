"""Versions on disk: numbering, atomic writing, cards, completeness and removal."""

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from digit_core.artifact.task_card import DIGITS
from digit_core.artifact.versions import (
    SUMS,
    ArtifactError,
    Version,
    check_writable,
    list_versions,
    write_version,
)
from tests.core.artifact.folders import write_files


def accept(_: Path) -> None:
    """Accept every version."""


def test_list_versions_returns_numbers_newest_first(tmp_path: Path) -> None:
    for name in ("2", "0010", "1", ".publishing-1", "canary", "1.5", "-3", "²", "9" * 19):
        (tmp_path / name).mkdir()
    (tmp_path / "3").touch()
    assert list(list_versions(tmp_path)) == [10, 2, 1]
    assert list_versions(tmp_path)[10] == Version(tmp_path.name, 10, tmp_path / "0010")
    assert list_versions(tmp_path / "missing") == {}


def test_write_version_numbers_it_after_the_highest(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "digits"
    assert write_version(folder, write_files, accept).path == folder / "1"
    (folder / "00009").mkdir()
    assert write_version(folder, write_files, accept) == Version("digits", 10, folder / "10")


def test_write_version_shows_none_before_it_is_verified(tmp_path: Path) -> None:
    def verify(version: Path) -> None:
        assert Version("digits", 0, version).is_complete
        assert list_versions(tmp_path) == {}

    write_version(tmp_path, write_files, verify)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_write_version_failure_leaves_no_files(tmp_path: Path, error: BaseException) -> None:
    def write(version: Path) -> None:
        write_files(version)
        raise error

    with pytest.raises(type(error)):
        write_version(tmp_path, write, accept)
    assert list(tmp_path.iterdir()) == []


def test_write_version_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    for name in (".publishing-1", ".removing-7"):
        write_files(tmp_path / name)
    write_version(tmp_path, write_files, accept)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize("lost", ["saved_model.pb", "variables", "variables/variables.index"])
def test_defect_of_a_missing_file_is_named(tmp_path: Path, lost: str) -> None:
    write_files(tmp_path)
    version = Version("digits", 1, tmp_path)
    assert version.defect() == ""
    path = tmp_path / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert version.defect() == "missing or incomplete"


def test_defect_of_a_file_that_changed_since_its_publication_is_named(tmp_path: Path) -> None:
    version = write_version(tmp_path, write_files, accept)
    assert version.defect() == ""
    data = version.path / "variables" / "variables.data-00000-of-00001"
    check = ["sha256sum", "--check", "--status", SUMS]
    assert subprocess.run(check, cwd=version.path).returncode == 0
    os.truncate(data, 3)
    assert version.defect() == "damaged: variables/variables.data-00000-of-00001 is not as it was published"
    assert subprocess.run(check, cwd=version.path).returncode == 1
    data.write_text("bytes")
    assert version.defect() == ""
    (version.path / SUMS).write_bytes(b"\xff")
    assert version.defect() == f"damaged: {SUMS} can't be read"


def test_task_is_that_of_the_card_or_digits(tmp_path: Path) -> None:
    version = Version("digits", 1, tmp_path)
    (tmp_path / "assets.extra").mkdir()
    for text in ("", "[]", "{"):
        (tmp_path / "assets.extra" / "model.json").write_text(text)
        assert (version.card(), version.task()) == ({}, DIGITS)
    task = {"name": "shapes", "labels": ["a", "b"], "input": {"shape": [8, 8], "range": [0, 1]}}
    (tmp_path / "assets.extra" / "model.json").write_text(json.dumps({"task": task}))
    assert version.task().labels == ("a", "b")
    (tmp_path / "assets.extra" / "model.json").write_text('{"task": {}}')
    with pytest.raises(ArtifactError, match=rf"{tmp_path} has an invalid task card .*: the task card lacks"):
        version.task()


def test_remove_leaves_no_files(tmp_path: Path) -> None:
    version = write_version(tmp_path, write_files, accept)
    assert version.size() == 15 + (version.path / SUMS).stat().st_size
    version.remove()
    assert list(tmp_path.iterdir()) == []


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path)
    check_writable(tmp_path / "new" / "models")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"/file can't be written: Not a directory$"):
        check_writable(tmp_path / "file")


@pytest.mark.usefixtures("full_disk")
def test_check_writable_of_a_full_disk_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=rf"^{tmp_path}/new can't be written: No space left on device$"):
        check_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_check_writable_without_room_says_what_is_needed_and_free(tmp_path: Path) -> None:
    message = "No space left on device; 1,073,741,824.0 MiB are needed, and [0-9,.]+ MiB are free"
    with pytest.raises(OSError, match=f"^{tmp_path}/new can't be written: {message}$"):
        check_writable(tmp_path / "new", needed=2**50)


def test_write_version_on_a_full_disk_leaves_nothing_and_names_the_folder(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "weights").touch()
        # TensorFlow's exception is no OSError.
        raise ValueError(f"{folder}/weights; {os.strerror(errno.ENOSPC)}")

    message = (
        rf"^{tmp_path} can't be written: No space left on device; a version needs more than the .* free$"
    )
    with pytest.raises(OSError, match=message):
        write_version(tmp_path, fill, accept)
    assert list(tmp_path.iterdir()) == []
