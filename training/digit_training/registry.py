"""Model registry: a directory of versions, `<models>/1`, `<models>/2`, …, that a model server watches."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4


def latest_version(models: Path) -> Path | None:
    """Return the version with the highest number, or None if there is none."""
    return max(list_versions(models), key=_number, default=None)


def list_versions(models: Path) -> list[Path]:
    """Return the paths of all versions, unordered; [] if the directory does not exist."""
    if not models.is_dir():
        return []
    return [path for path in models.iterdir() if path.name.isascii() and path.name.isdigit()]


def publish(models: Path, write: Callable[[Path], None]) -> Path:
    """Publish the directory that `write` fills as the next version, atomically; return its path.

    A model server loads a version as soon as a directory with a numeric name appears. The files are
    therefore written and fsynced under a name that is not numeric, which is then renamed.
    """
    models.mkdir(parents=True, exist_ok=True)
    staging = models / f".publishing-{uuid4().hex}"
    try:
        staging.mkdir()
        write(staging)
        _fsync_tree(staging)
        version = _rename_to_next_number(models, staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _fsync(models)
    return version


def _rename_to_next_number(models: Path, staging: Path) -> Path:
    newest = latest_version(models)
    number = _number(newest) + 1 if newest else 1
    while True:
        version = models / str(number)
        try:
            return staging.rename(version)
        except OSError as error:
            # A concurrent publisher took the number: rename refuses to replace a directory with content.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        number += 1


def _number(version: Path) -> int:
    return int(version.name)


def _fsync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        _fsync(path)
    _fsync(directory)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
