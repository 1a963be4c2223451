"""Published versions on disk."""

import subprocess
import sys
from pathlib import Path

import pytest

from digit_serving.releases.versions import PublishedVersion, list_versions, remove_leftovers


@pytest.fixture
def version(tmp_path: Path) -> PublishedVersion:
    extra = tmp_path / "1" / "assets.extra"
    extra.mkdir(parents=True)
    (extra / "model.json").write_text('{"accuracy": 0.5}')
    (tmp_path / "1" / "saved_model.pb").write_bytes(bytes(100))
    return PublishedVersion(1, tmp_path / "1")


def test_list_versions_returns_numbered_folders_newest_first(tmp_path: Path) -> None:
    for name in ("2", "00010", "9", "canary", "1.5", "-3", "²", ".publishing-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    found = list_versions(tmp_path)
    assert list(found) == [10, 9, 2]
    assert found[10].path == tmp_path / "00010"
    assert list_versions(tmp_path / "none") == {}


def test_published_version_has_card_and_size(version: PublishedVersion) -> None:
    assert version.card() == {"accuracy": 0.5}
    assert version.size() == 117


@pytest.mark.parametrize("content", ["", "[1]", "\udcff"])
def test_card_missing_or_unreadable_is_empty(version: PublishedVersion, content: str) -> None:
    path = version.path / "assets.extra" / "model.json"
    path.write_text(content, errors="surrogateescape")
    assert version.card() == {}
    path.unlink()
    assert version.card() == {}


def test_remove_leaves_nothing(version: PublishedVersion) -> None:
    version.remove()
    assert list(version.path.parent.iterdir()) == []


def test_remove_killed_leaves_no_version_and_remove_leftovers_cleans_up(version: PublishedVersion) -> None:
    # The process is killed when it deletes the first file.
    code = """
import os, signal, sys
from pathlib import Path
from digit_serving.releases.versions import PublishedVersion
sys.addaudithook(lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event == "os.remove" else None)
PublishedVersion(1, Path(sys.argv[1])).remove()
"""
    assert subprocess.run([sys.executable, "-c", code, version.path]).returncode == -9
    (leftover,) = version.path.parent.iterdir()
    assert not leftover.name.isdigit()
    assert list_versions(version.path.parent) == {}
    remove_leftovers(version.path.parent)
    assert list(version.path.parent.iterdir()) == []
