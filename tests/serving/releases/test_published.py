"""The versions on the disk."""

import subprocess
import sys
from pathlib import Path

import pytest

from digit_serving.releases.published import Published, clear, published


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
from digit_serving.releases.published import Published
sys.addaudithook(lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event == "os.remove" else None)
Published(1, Path(sys.argv[1])).remove()
"""
    assert subprocess.run([sys.executable, "-c", code, version.path]).returncode == -9
    (leftover,) = version.path.parent.iterdir()
    assert not leftover.name.isdigit()
    assert published(version.path.parent) == {}
    clear(version.path.parent)
    assert list(version.path.parent.iterdir()) == []
