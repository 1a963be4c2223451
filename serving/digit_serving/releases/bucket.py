"""Versions in object storage: atomic push and pull, which check every file and go on where they stopped.

Version N in `s3://bucket/digits` has a manifest, `N/manifest.json`, with the SHA-256 of each file, and its
files in `N/<SHA-256 of the manifest>/`. The manifest is written last, and only if there is none: the version
exists from then on, and concurrent pushers of different files write into different folders.
"""

import errno
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from digit_serving.filesystems import open_folder
from digit_serving.releases.config import ModelsConfig, ReleaseError, exclusive_lock, fsync
from digit_serving.releases.versions import PublishedVersion, list_versions

_MANIFEST = "manifest.json"
_STAGED_PREFIX = ".pulling-"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """SHA-256 of each file of a version, by its path in the version's folder."""

    sha256: dict[str, str]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the manifest of the files in a folder. Raises ReleaseError for a link to a folder."""
        paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
        for path in paths:
            # rglob does not look into links to folders, whose files would be missing.
            if not path.is_file():
                raise ReleaseError(f"{path} is neither a file nor a folder; put a copy in place of a link")
        return cls({path.relative_to(folder).as_posix(): _sha256(path) for path in paths})

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Parse a manifest's text. Raises ReleaseError if it is damaged, or a path leads elsewhere."""
        try:
            manifest = cls(json.loads(text)["sha256"])
            is_valid = manifest.text() == text
            paths = [PurePosixPath(path) for path in manifest.sha256]
        except (ValueError, LookupError, TypeError, AttributeError):
            is_valid = False
        if not is_valid or any(path.is_absolute() or ".." in path.parts for path in paths):
            raise ReleaseError("the manifest is damaged; remove the version there and push it again")
        return manifest

    def text(self) -> bytes:
        """Return the text, which is the same for the same files."""
        return json.dumps({"sha256": self.sha256}, indent=2, sort_keys=True).encode() + b"\n"


class Bucket:
    """Versions of a model at a URL of object storage. Methods raise ReleaseError for every failure."""

    def __init__(self, url: str) -> None:
        """Open the folder at `url`, which has to be one of object storage."""
        self.url = url.rstrip("/")
        with _release_errors(self.url):
            self._files, self._root = open_folder(self.url)
        if "local" in self._files.protocol:
            raise ReleaseError(f"{url} is no URL of object storage, such as s3://bucket/digits")

    def versions(self) -> set[int]:
        """Return the complete versions."""
        with _release_errors(self.url):
            try:
                # One request for a thousand files; `exists` would be one for each version.
                paths = self._files.find(self._root)
            except FileNotFoundError:
                return set()
        manifest = re.compile(rf"{re.escape(self._root)}/(0|[1-9][0-9]*)/{re.escape(_MANIFEST)}")
        return {int(found[1]) for path in paths if (found := manifest.fullmatch(path))}

    def push(self, version: PublishedVersion, report: Report) -> None:
        """Copy a version into the bucket, unless it is there. It is an error if it has other files there."""
        url = f"{self.url}/{version.number}"
        with _release_errors(url):
            manifest = Manifest.of(version.path)
            there = self._manifest(version.number)
            if there is None:
                self._upload(version, manifest, report)
                there = self._write_manifest(version.number, manifest)
        if there != manifest:
            raise ReleaseError(f"{url} has other files than {version.path}, and a version never changes")
        report(f"{url} is complete.")

    def pull(
        self, number: int, folder: Path, check: Callable[[Path], None], timeout: float, report: Report
    ) -> None:
        """Copy a version into the folder of versions; it appears when it is complete.

        `check` gets the folder of the complete files, and raises to refuse them. `timeout` is the wait in
        seconds for another process that pulls into the folder. It is an error if the folder has the version
        with other files.
        """
        url, path, lock_file = f"{self.url}/{number}", folder / str(number), folder / f"{_STAGED_PREFIX}lock"
        with _release_errors(url):
            folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(lock_file, folder, timeout):
                self._pull(number, path, check, report)
        report(f"{path} is complete.")

    def _pull(self, number: int, path: Path, check: Callable[[Path], None], report: Report) -> None:
        manifest = self._manifest(number)
        if manifest is None:
            raise ReleaseError("there is no such version, or no complete one")
        present = list_versions(path.parent).get(number)
        if present is None:
            staged = path.with_name(f"{_STAGED_PREFIX}{number}")
            self._download(number, manifest, staged, report)
            check(staged)
            _publish(staged, path)
        elif Manifest.of(present.path) != manifest:
            raise ReleaseError(f"{present.path} has other files; remove one of the two versions")
        else:
            check(present.path)

    def _manifest(self, number: int) -> Manifest | None:
        try:
            return Manifest.parse(self._files.cat_file(f"{self._root}/{number}/{_MANIFEST}"))
        except FileNotFoundError:
            return None

    def _write_manifest(self, number: int, manifest: Manifest) -> Manifest | None:
        """Write the manifest unless there is one; return that of the bucket."""
        try:
            self._files.pipe_file(f"{self._root}/{number}/{_MANIFEST}", manifest.text(), mode="create")
        except OSError:
            # Filesystems have different errors for a file that exists.
            there = self._manifest(number)
            if there is None:
                raise
            return there
        return manifest

    def _upload(self, version: PublishedVersion, manifest: Manifest, report: Report) -> None:
        folder = self._folder(version.number, manifest)
        # An object appears when all its bytes have arrived, and the folder's name stands for its content.
        there = self._files.find(folder)
        missing = [path for path in manifest.sha256 if f"{folder}/{path}" not in there]
        report(f"Pushing {len(missing)} of {len(manifest.sha256)} files of version {version.number} ...")
        for path in missing:
            self._files.put_file(str(version.path / path), f"{folder}/{path}")

    def _download(self, number: int, manifest: Manifest, staged: Path, report: Report) -> None:
        staged.mkdir(exist_ok=True)
        there = Manifest.of(staged).sha256
        for path in there.keys() - manifest.sha256.keys():
            (staged / path).unlink()
        missing = [path for path, sha256 in manifest.sha256.items() if there.get(path) != sha256]
        report(f"Pulling {len(missing)} of {len(manifest.sha256)} files of version {number} ...")
        for path in missing:
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                self._files.get_file(f"{self._folder(number, manifest)}/{path}", str(staged / path))
            if not (staged / path).exists() or _sha256(staged / path) != manifest.sha256[path]:
                raise ReleaseError(
                    f"{path} is missing or damaged; remove the version there and push it again"
                )

    def _folder(self, number: int, manifest: Manifest) -> str:
        return f"{self._root}/{number}/{hashlib.sha256(manifest.text()).hexdigest()}"


def versions_to_pull(bucket: Bucket, config: Path | None, name: str | None) -> list[int]:
    """Return the versions in the bucket that a server with this models.config loads, or else the newest.

    `name` is that of the model, None if the configuration has one model. Raises ReleaseError if the bucket
    lacks a version that the policy lists.
    """
    found = bucket.versions()
    if not found:
        raise ReleaseError(f"{bucket.url} has no version; `digits models push` puts one there")
    if config is None:
        return [max(found)]
    try:
        models = ModelsConfig.parse(config.read_text())
        name = models.choose(name)
    except (ReleaseError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{config}: {error}") from error
    if missing := {*(models.listed_versions(name) or ())} - found:
        raise ReleaseError(f"{bucket.url} lacks version {min(missing)}, which {config} lists")
    return sorted(models.versions_to_load(name, found))


@contextmanager
def _release_errors(url: str) -> Iterator[None]:
    """Turn every error into ReleaseError with the URL: filesystems raise those of their libraries."""
    try:
        yield
    except Exception as error:
        raise ReleaseError(f"{url}: {error}") from error


def _publish(staged: Path, path: Path) -> None:
    for file in staged.rglob("*"):
        fsync(file)
    fsync(staged)
    try:
        staged.rename(path)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        raise ReleaseError(f"{path} was published by another program in the meantime") from error
    fsync(path.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
