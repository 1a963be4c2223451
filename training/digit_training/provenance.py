"""Provenance of a model for its card: the source's git revision and the lock file's checksum."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

LOCK_FILE = "constraints.txt"


def describe() -> dict[str, str | None]:
    """Return revision and checksum as JSON values, None for what is unknown.

    `git_revision` is that of the working folder's checkout, with `-dirty` if a file of it is changed, unless
    DIGITS_GIT_REVISION states it, as in an image. `lock_sha256` is the checksum of constraints.txt in the
    checkout, or in the Python environment if there is no checkout.
    """
    checkout = _git("rev-parse", "--show-toplevel")
    lock = Path(checkout or sys.prefix, LOCK_FILE)
    # --exclude: the revision itself in place of the distance from a tag.
    revision = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return {
        "git_revision": os.environ.get("DIGITS_GIT_REVISION") or revision,
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


def _git(*arguments: str) -> str | None:
    """Return the output of git; None if it fails, for want of a checkout say, or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
