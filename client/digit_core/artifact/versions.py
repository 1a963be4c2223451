"""Versions on disk: the folders `<models>/<name>/<number>/`, each a SavedModel with its model card."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from digit_core.artifact.task_card import DIGITS, TaskCard, TaskCardError
from digit_core.errors import mebibytes

SUMS = "assets.extra/SHA256SUMS"
"""File with the checksums of a version's other files at its publication, as `sha256sum` reads it."""
STAGING_PREFIX = ".publishing-"
_REMOVED_PREFIX = ".removing-"
_PROBE_BYTES = 2**20
_NO_SPACE = os.strerror(errno.ENOSPC)
_MAX_DIGITS = 18
"""Digits of the largest number: the model server's API has 64 bits for it."""


class ArtifactError(Exception):
    """Failed lookup or change of published models; one sentence for a terminal."""


class UnsignedError(ArtifactError):
    """The files of a version are not those that a key's owner signed."""


@dataclass(frozen=True, slots=True)
class Version:
    """Published version of a model. `number` is its folder's name as the model server reads it: 0007 is 7."""

    model: str
    number: int
    path: Path

    def defect(self) -> str:
        """Return what keeps the version from being served: a missing or changed file; "" if nothing does."""
        if not self.is_complete:
            return "missing or incomplete"
        try:
            sums = (self.path / SUMS).read_text().splitlines()
        except FileNotFoundError:
            return ""  # published without checksums, or by others
        except (OSError, UnicodeDecodeError):
            return f"damaged: {SUMS} can't be read"
        for digest, name in (line.split("  ", 1) for line in sums if "  " in line):
            try:
                is_same = sha256(self.path / name) == digest
            except OSError:
                is_same = False
            if not is_same:
                return f"damaged: {name} is not as it was published"
        return ""

    @property
    def is_complete(self) -> bool:
        """True if the folder has the files of every SavedModel with weights."""
        variables = self.path / "variables"
        return (self.path / "saved_model.pb").is_file() and (
            (variables / "variables.index").is_file() and any(variables.glob("variables.data-*"))
        )

    def card(self) -> dict[str, Any]:
        """Return the model card; empty if it is missing or unreadable."""
        try:
            card = json.loads((self.path / "assets.extra" / "model.json").read_text())
        except (OSError, ValueError):
            return {}
        return card if isinstance(card, dict) else {}

    def task(self) -> TaskCard:
        """Return the task card, by default the digits'. Raise ArtifactError if it is invalid."""
        task = self.card().get("task", DIGITS.to_document())
        try:
            return TaskCard.from_document(task if isinstance(task, dict) else {})
        except TaskCardError as error:
            raise ArtifactError(f"{self.path} has an invalid task card in its model.json: {error}") from error

    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def remove(self) -> None:
        """Rename the folder, then delete it, so that a model server never sees a part of the version."""
        removed = self.path.rename(self.path.with_name(_REMOVED_PREFIX + self.path.name))
        fsync(removed.parent)
        shutil.rmtree(removed)


def list_versions(folder: Path) -> dict[int, Version]:
    """Return the versions in a model's folder by number, newest first; none if it does not exist."""
    names = [path.name for path in folder.glob("*/") if path.name.isascii() and path.name.isdigit()]
    found = {int(name): folder / name for name in sorted(names) if len(name) <= _MAX_DIGITS}
    return {number: Version(folder.name, number, found[number]) for number in sorted(found, reverse=True)}


def write_version(folder: Path, write: Callable[[Path], None], verify: Callable[[Path], None]) -> Version:
    """Write the next version of a model atomically: `write` fills a folder, and `verify` accepts it.

    A model server may load a version as soon as a folder with a numeric name appears. The files are therefore
    written, verified and fsynced under a name that is not numeric, which is then renamed. The caller holds a
    lock of the folder: leftovers of an interrupted call are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    staging = folder / f"{STAGING_PREFIX}{uuid4().hex}"
    try:
        staging.mkdir()
        write(staging)
        _write_sums(staging)
        verify(staging)
        for path in [*staging.rglob("*"), staging]:
            fsync(path)
        number = max(list_versions(folder), default=0) + 1
        version = Version(folder.name, number, staging.rename(folder / str(number)))
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        # TensorFlow has exceptions of its own for a full disk; their message has the system's words, too.
        if _NO_SPACE in str(error):
            free = mebibytes(shutil.disk_usage(folder).free)
            missing = f"a version needs more than the {free} that are free"
            raise OSError(f"{folder} can't be written: {_NO_SPACE}; {missing}") from error
        raise
    fsync(folder)
    return version


def _write_sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).parent.mkdir(exist_ok=True)
    (folder / SUMS).write_text("".join(lines))


def sha256(path: Path) -> str:
    """Return the checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Delete the remains of interrupted publications and removals. No process may publish meanwhile."""
    for prefix in (STAGING_PREFIX, _REMOVED_PREFIX):
        for leftover in folder.glob(f"{prefix}*/"):
            shutil.rmtree(leftover)


def fsync(path: Path) -> None:
    """Block until the file's content, or the folder's entries (created, renamed, removed), are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write a file beside its place, fsync it, and rename it: readers see the old text or the new one."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text)
        fsync(new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def check_writable(folder: Path, needed: int = 0) -> None:
    """Probe the folder, or the nearest one above it that exists: write a megabyte to disk, and remove it.

    Raise OSError, whose sentence names the folder, if it is read-only, or has no room for `needed` bytes.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    needed, free = max(needed, _PROBE_BYTES), shutil.disk_usage(existing).free
    if free < needed:
        missing = f"{mebibytes(needed)} are needed, and {mebibytes(free)} are free"
        raise OSError(f"{folder} can't be written: {_NO_SPACE}; {missing}")
    try:
        with TemporaryFile(dir=existing) as probe:
            # Use random bytes: no file system can compress them.
            probe.write(os.urandom(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise OSError(f"{folder} can't be written: {error.strerror}") from error
