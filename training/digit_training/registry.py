"""The directory of versions that a model server watches: `<models>/1`, `<models>/2`, …"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4


def latest(models: Path) -> Path | None:
    """The version with the highest number, if there is any."""
    return max(every(models), key=_number, default=None)


def every(models: Path) -> list[Path]:
    """The versions, in no order."""
    if not models.is_dir():
        return []
    return [path for path in models.iterdir() if path.name.isascii() and path.name.isdigit()]


def publish(models: Path, write: Callable[[Path], None]) -> Path:
    """Lets `write` fill a directory and makes it the next version, whole or not at all; returns its path.

    A model server loads a version the moment a directory with a number for a name appears, so the directory
    is filled, and on the disk, under a name that is none.
    """
    models.mkdir(parents=True, exist_ok=True)
    staging = models / f".publishing-{uuid4().hex}"
    try:
        staging.mkdir()
        write(staging)
        _sync(staging)
        version = _claim_next(models, staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync_one(models)
    return version


def _claim_next(models: Path, staging: Path) -> Path:
    newest = latest(models)
    number = _number(newest) + 1 if newest else 1
    while True:
        version = models / str(number)
        try:
            return staging.rename(version)
        except OSError as error:
            # Another publisher took the number: a rename replaces an empty directory, never a filled one.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        number += 1


def _number(version: Path) -> int:
    return int(version.name)


def _sync(directory: Path) -> None:
    for path in directory.rglob("*"):
        _sync_one(path)
    _sync_one(directory)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
