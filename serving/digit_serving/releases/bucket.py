"""Models in object storage: atomic push and pull, which check every file and resume where they stopped.

The layout is that of a models folder. Version N of digits in `s3://bucket/models` has a manifest,
`digits/N/manifest.json`, with the SHA-256 of each file, and its files in `digits/N/<SHA-256 of the
manifest>/`. The manifest is written last, and only if there is none: the version exists from then on, and
concurrent pushers of different files write into different folders. `models.config` names the versions to
serve, and their labels.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.dirfs import DirFileSystem

from digit_core.artifact.models_config import STABLE, ModelsConfig
from digit_core.artifact.models_folder import KEPT_VERSIONS, ModelsFolder, Report
from digit_core.artifact.versions import ArtifactError, UnsignedError, Version, fsync, sha256

_STAGED_PREFIX = ".pulling-"
_SERVED_FOLDER = Path("/models")
"""Models folder of a container that pulls from a bucket."""
_WRITE_ATTEMPTS = 10


class Bucket:
    """Models at a URL of object storage. Methods raise ArtifactError for every failure."""

    def __init__(self, url: str, report: Report) -> None:
        """Open the folder at `url`, which must be one of object storage."""
        self.url, self.report = url.rstrip("/"), report
        with _artifact_errors(self.url):
            filesystem, root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        if "local" in filesystem.protocol:
            raise ArtifactError(f"{url} is not a URL of object storage, such as s3://bucket/models")
        self._files = DirFileSystem(root, filesystem)

    def read_config(self) -> tuple[ModelsConfig, dict[str, Any]]:
        """Return models.config, and the condition of its replacement: nobody else has changed the file."""
        with _artifact_errors(f"{self.url}/models.config"):
            try:
                tag = self._files.info("models.config").get("ETag")
                config = ModelsConfig.parse(self._files.cat_file("models.config").decode())
            except FileNotFoundError:
                return ModelsConfig.empty(), {"mode": "create"}
        return config, {"IfMatch": tag} if tag else {}

    def enter(self, versions: Sequence[Version], labels: Mapping[str, int]) -> None:
        """Enter versions of a model in models.config, and move these labels.

        The first version of a model gets the label `stable`. The newest ten and labelled ones stay listed.
        """
        name, numbers = versions[0].model, {version.number for version in versions}
        for _ in range(_WRITE_ATTEMPTS):
            config, condition = self.read_config()
            if not config.is_ours:
                raise ArtifactError(f"Digits did not write {self.url}/models.config; use another folder")
            moved = {STABLE: min(numbers)} | config.labels(name) | dict(labels)
            newest = sorted(config.listed(name) | numbers)[-KEPT_VERSIONS:]
            changed = config.with_versions(name, {*newest, *numbers, *moved.values()}, _SERVED_FOLDER / name)
            for label, number in moved.items():
                changed = changed.with_label(name, label, number)
            if changed == config:
                return
            with _artifact_errors(f"{self.url}/models.config"):
                try:
                    self._files.pipe_file("models.config", str(changed).encode(), **condition)
                    return
                except OSError:
                    # Filesystems have different errors for an unmet condition.
                    if self.read_config()[1] == condition:
                        raise
        raise ArtifactError(f"{self.url}/models.config is being changed by others; try again")

    def push(self, version: Version) -> None:
        """Copy a version into the bucket, unless it is there; raise ArtifactError if other files are."""
        place = f"{version.model}/{version.number}"
        with _artifact_errors(f"{self.url}/{place}"):
            sums, there = _checksums(version.path), self._read_manifest(place)
            if there is None:
                there = json.dumps({"sha256": sums}, indent=2, sort_keys=True).encode() + b"\n"
                # An object appears whole, and the folder's name stands for its content.
                target = f"{place}/{hashlib.sha256(there).hexdigest()}"
                present = self._files.find(target)
                missing = [path for path in sums if f"{target}/{path}" not in present]
                self.report(f"Pushing {len(missing)} of {len(sums)} files of version {version.number} ...")
                for path in missing:
                    self._files.put_file(str(version.path / path), f"{target}/{path}")
                try:
                    self._files.pipe_file(f"{place}/manifest.json", there, mode="create")
                except OSError:
                    # Filesystems have different errors for a file that exists.
                    if (there := self._read_manifest(place)) is None:
                        raise
            if _parse(there) != sums:
                raise ArtifactError(f"it has other files than {version.path}; publish another version")
        self.report(f"{self.url}/{place} is complete.")

    def pull(self, version: Version, check: Callable[[Path], None]) -> None:
        """Copy a version into its folder, which appears when it is complete. The caller holds a lock.

        `check` gets the folder of the complete files, and raises UnsignedError to refuse them. Raise
        ArtifactError if the folder exists with other files.
        """
        path, place = version.path, f"{version.model}/{version.number}"
        with _artifact_errors(f"{self.url}/{place}"):
            manifest = self._read_manifest(place)
            if manifest is None:
                raise ArtifactError("the version is missing or incomplete; push it again")
            staged = path if path.exists() else path.with_name(f"{_STAGED_PREFIX}{path.name}")
            wanted, present = _parse(manifest), _checksums(staged)
            if present != wanted:
                if staged == path:
                    raise ArtifactError(f"{path} has other files; remove one of the two versions")
                for each in present.keys() - wanted.keys():
                    (staged / each).unlink()
                missing = [each for each in wanted if present.get(each) != wanted[each]]
                self.report(f"Pulling {len(missing)} of {len(wanted)} files of version {version.number} ...")
                source = f"{place}/{hashlib.sha256(manifest).hexdigest()}"
                with suppress(FileNotFoundError):
                    self._files.get(
                        [f"{source}/{each}" for each in missing], [str(staged / each) for each in missing]
                    )
                if _checksums(staged) != wanted:
                    raise ArtifactError(
                        "a file is missing or damaged; remove the version there and push it again"
                    )
            check(staged)
            if staged != path:
                for entry in [*staged.rglob("*"), staged]:
                    fsync(entry)
                staged.rename(path)
                fsync(path.parent)
        self.report(f"{path} is complete.")

    def remove_unlisted(self, folder: ModelsFolder, name: str, kept: set[int]) -> None:
        """Remove from the folder the versions that the bucket has, except those in `kept`."""
        for version in folder.versions(name).values():
            if version.number in kept:
                continue
            place = f"{name}/{version.number}"
            with _artifact_errors(f"{self.url}/{place}"):
                manifest = self._read_manifest(place)
                is_kept = manifest is not None and _parse(manifest) == _checksums(version.path)
            if is_kept:
                version.remove()
                self.report(f"{version.path} is removed: {self.url}/models.config does not list it.")
        for staged in (folder.root / name).glob(f"{_STAGED_PREFIX}*/"):
            if staged.name not in {f"{_STAGED_PREFIX}{number}" for number in kept}:
                shutil.rmtree(staged)

    def _read_manifest(self, place: str) -> bytes | None:
        with suppress(FileNotFoundError):
            text: bytes = self._files.cat_file(f"{place}/manifest.json")
            return text
        return None


def push_versions(
    bucket: Bucket, folder: ModelsFolder, versions: Sequence[Version], labels: Mapping[str, int]
) -> None:
    """Copy versions of a model that the folder's models.config lists, enter them, and move labels."""
    config = folder.read_config()
    for version in versions:
        if version.number not in config.selected(version.model, {version.number}):
            raise ArtifactError(
                f"version {version.number} is not in {folder.config_path}; "
                f"`digits models verify {version.number}` adds it"
            )
        bucket.push(version)
    bucket.enter(versions, labels)


@dataclass(frozen=True, slots=True)
class Pull:
    """Copies of a bucket's versions in a models folder, whose lock the caller holds.

    `check` gets the folder of a version's complete files, and raises UnsignedError to refuse them.
    """

    bucket: Bucket
    folder: ModelsFolder
    check: Callable[[Path], None]

    def run(self, name: str | None, numbers: Sequence[int]) -> None:
        """Copy these versions; by default those that the bucket's models.config lists, and then its entries.

        `name` is that of the model, None for all models, or for the only one if there are numbers. A listed
        version that `check` refuses is left out, and its labels stay where they were. A version that is
        no longer listed is removed if the bucket has it, unless a rollback needs it. Raise ArtifactError for
        a failure, and if `check` refuses every version.
        """
        config, _ = self.bucket.read_config()
        names = [name] if name else list(config.base_paths)
        if not names or not (numbers or config.listed(names[0])):
            raise ArtifactError(
                f"{self.bucket.url}/models.config names no version{f' of {name}' if name else ''}; "
                "`digits models push` enters one"
            )
        if numbers and len(names) > 1:
            raise ArtifactError(f"choose one of the models with --model: {', '.join(names)}")
        if not numbers:
            self._follow(config, names)
        for number in numbers:
            self._pull(names[0], number)

    def _follow(self, config: ModelsConfig, names: Sequence[str]) -> None:
        folder = self.folder
        old = changed = folder.read_config()
        if not old.is_ours:
            raise ArtifactError(f"Digits did not write {folder.config_path}; use another folder")
        refusals = {name: self._pull_listed(config, name) for name in names}
        errors = [error for refused in refusals.values() for error in refused.values()]
        if errors and all(config.listed(name) == refusals[name].keys() for name in names):
            raise errors[0]
        for name in names:
            if accepted := config.listed(name) - refusals[name].keys():
                changed = self._take_over(changed, config, name, accepted)
        if changed != old:
            folder.write_config(changed)
        for name in names:
            needed = folder.needed(name, changed.labels(name))
            self.bucket.remove_unlisted(folder, name, config.listed(name) | changed.listed(name) | needed)

    def _pull_listed(self, config: ModelsConfig, name: str) -> dict[int, UnsignedError]:
        """Copy the listed versions of a model; return the errors of those that are refused."""
        refused = {}
        for number in sorted(config.listed(name)):
            try:
                self._pull(name, number)
            except UnsignedError as error:
                refused[number] = error
                self.bucket.report(f"{error}; version {number} is left out.")
        return refused

    def _pull(self, name: str, number: int) -> None:
        self.bucket.pull(self.folder.place(name, number), self.check)

    def _take_over(
        self, local: ModelsConfig, config: ModelsConfig, name: str, accepted: set[int]
    ) -> ModelsConfig:
        """Return the folder's configuration with the bucket's entry of a model, without refused versions."""
        old = local.labels(name)
        usable = accepted | (self.folder.versions(name).keys() - config.listed(name))
        labels = {
            label: number if number in accepted else old[label]
            for label, number in config.labels(name).items()
            if number in accepted or old.get(label) in usable
        }
        local = local.without(name) if name in local.base_paths else local
        local = local.with_versions(name, accepted | {*labels.values()}, self.folder.root.resolve() / name)
        for label, number in labels.items():
            local = local.with_label(name, label, number)
        return local


def _checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by its path. Raise ArtifactError for a link to a folder."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sums[path.relative_to(folder).as_posix()] = sha256(path)
        elif path.is_symlink() or not path.is_dir():
            # rglob does not look into links to folders, whose files would be missing.
            raise ArtifactError(f"{path} is neither a file nor a folder; put a copy in place of a link")
    return sums


def _parse(manifest: bytes) -> dict[str, str]:
    """Return the SHA-256 of each path. Raise ArtifactError if one leads elsewhere, or for damage."""
    try:
        sums = dict(json.loads(manifest)["sha256"].items())
    except (ValueError, LookupError, TypeError, AttributeError):
        sums = {}
    paths = [PurePosixPath(path) for path in sums]
    if not paths or any(path.is_absolute() or ".." in path.parts for path in paths):
        raise ArtifactError("the manifest is damaged; remove the version there and push it again")
    return sums


@contextmanager
def _artifact_errors(url: str) -> Iterator[None]:
    """Turn every error into ArtifactError with the URL: filesystems raise those of their libraries."""
    try:
        yield
    except UnsignedError as error:
        raise UnsignedError(f"{url}: {error}") from error
    except Exception as error:
        raise ArtifactError(f"{url}: {error}") from error
