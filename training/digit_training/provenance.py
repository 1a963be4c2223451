"""Provenance of a model for its card: git revision, and checksums of the lock file and the model's file."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from digit_core.artifact.versions import sha256

LOCK_FILE = "constraints.txt"


def describe(path: Path | None = None) -> dict[str, str | None]:
    """Return revision and checksums as JSON values, None for what is unknown.

    `path` is the Keras file or the SavedModel, None for a model that was fitted here. `git_revision` is that
    of the checkout in which it lies, or of the working folder's, with `-dirty` if a file of it is changed,
    unless DIGITS_GIT_REVISION states it, as in an image. `lock_sha256` is the checksum of constraints.txt in
    the checkout, or in the Python environment if there is no checkout.
    """
    folder = path.resolve().parent if path else Path()
    checkout = _git(folder, "rev-parse", "--show-toplevel")
    lock = Path(checkout or sys.prefix, LOCK_FILE)
    # --exclude selects the revision itself in place of the distance from a tag.
    revision = _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return {
        "git_revision": os.environ.get("DIGITS_GIT_REVISION") or revision,
        "lock_sha256": sha256(lock) if lock.is_file() else None,
        **({"file": str(path), "file_sha256": _sha256(path)} if path else {}),
    }


def _sha256(path: Path) -> str:
    """Return the checksum of a file, or of the names and contents of a folder's files."""
    if path.is_file():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)} {_sha256(file)}\n".encode())
    return digest.hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of git; None if it fails, for example without a checkout, or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
