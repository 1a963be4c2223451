"""Provenance in the model card: git revision and checksum of the lock file."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from digit_training import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder in a checkout with a tag."""
    monkeypatch.delenv("DIGITS_GIT_REVISION", raising=False)
    (tmp_path / "constraints.txt").write_text("numpy==2.0\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=Begin")
    git(tmp_path, "tag", "--annotate", "v1", "--message=v1")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    return tmp_path


def test_describe_in_checkout_states_revision_and_lock_file(checkout: Path) -> None:
    revision, lock = git(checkout, "rev-parse", "HEAD"), hashlib.sha256(b"numpy==2.0\n").hexdigest()
    (checkout / "new").touch()
    assert provenance.describe() == {"git_revision": revision, "lock_sha256": lock}
    (checkout / "constraints.txt").unlink()
    assert provenance.describe() == {"git_revision": f"{revision}-dirty", "lock_sha256": None}


def test_describe_in_image_reads_variable_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("DIGITS_GIT_REVISION", "")
    assert provenance.describe() == {"git_revision": None, "lock_sha256": None}
    (tmp_path / "constraints.txt").write_text("keras==3.10\n")
    monkeypatch.setenv("DIGITS_GIT_REVISION", "0123")
    # The image has no git.
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = hashlib.sha256(b"keras==3.10\n").hexdigest()
    assert provenance.describe() == {"git_revision": "0123", "lock_sha256": expected}


def test_describe_of_a_file_or_folder_states_its_checksum_and_its_own_checkout(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    file = checkout / "below" / "mine.keras"
    file.write_bytes(b"model")
    described, folder = provenance.describe(file), provenance.describe(file.parent)
    assert described["git_revision"] == folder["git_revision"] == git(checkout, "rev-parse", "HEAD")
    assert (described["file"], described["file_sha256"]) == (str(file), hashlib.sha256(b"model").hexdigest())
    assert folder["file_sha256"] == provenance.describe(file.parent)["file_sha256"]
    (file.parent / "saved_model.pb").write_bytes(b"graph")
    assert folder["file_sha256"] != provenance.describe(file.parent)["file_sha256"]
