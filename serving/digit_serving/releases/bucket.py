"""Models in object storage: atomic push and pull, which check every file and go on where they stopped.

The layout is that of a models folder. Version N of digits in `s3://bucket/models` has a manifest,
`digits/N/manifest.json`, with the SHA-256 of each file, and its files in `digits/N/<SHA-256 of the
manifest>/`. The manifest is written last, and only if there is none: the version exists from then on, and
concurrent pushers of different files write into different folders. `models.config` names the versions to
serve, and their labels.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

import fsspec

from digit_core.artifact.models_config import STABLE, ModelsConfig
from digit_core.artifact.models_folder import KEPT_VERSIONS, ModelsFolder, Report
from digit_core.artifact.versions import ArtifactError, Version, fsync

_MANIFEST = "manifest.json"
_STAGED_PREFIX = ".pulling-"
_SERVED_FOLDER = Path("/models")
"""Models folder of a container that pulls from a bucket."""
_WRITE_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Manifest:
    """SHA-256 of each file of a version, by its path in the version's folder."""

    sha256: dict[str, str]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the manifest of the files in a folder. Raise ArtifactError for a link to a folder."""
        paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
        for path in paths:
            # rglob does not look into links to folders, whose files would be missing.
            if not path.is_file():
                raise ArtifactError(f"{path} is neither a file nor a folder; put a copy in place of a link")
        return cls({path.relative_to(folder).as_posix(): _sha256(path) for path in paths})

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Parse a manifest's text. Raise ArtifactError if it is damaged, or a path leads elsewhere."""
        try:
            manifest = cls(json.loads(text)["sha256"])
            is_valid = manifest.text() == text
            paths = [PurePosixPath(path) for path in manifest.sha256]
        except (ValueError, LookupError, TypeError, AttributeError):
            is_valid = False
        if not is_valid or any(path.is_absolute() or ".." in path.parts for path in paths):
            raise ArtifactError("the manifest is damaged; remove the version there and push it again")
        return manifest

    def text(self) -> bytes:
        """Return the text, which is the same for the same files."""
        return json.dumps({"sha256": self.sha256}, indent=2, sort_keys=True).encode() + b"\n"


class Bucket:
    """Models at a URL of object storage. Methods raise ArtifactError for every failure."""

    def __init__(self, url: str) -> None:
        """Open the folder at `url`, which has to be one of object storage."""
        self.url = url.rstrip("/")
        with _artifact_errors(self.url):
            self._files, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        if "local" in self._files.protocol:
            raise ArtifactError(f"{url} is no URL of object storage, such as s3://bucket/models")

    def read_config(self) -> ModelsConfig:
        """Return models.config; one without models if there is none."""
        return self._read_config()[0]

    def enter(self, versions: Sequence[Version], labels: Mapping[str, int]) -> None:
        """Enter versions of a model in models.config, and move these labels.

        The first version of a model gets the label `stable`. Ten versions stay listed, and labelled ones.
        """
        for _ in range(_WRITE_ATTEMPTS):
            config, condition = self._read_config()
            changed = _with_entry(config, versions, labels)
            if not config.is_ours:
                raise ArtifactError(f"Digits did not write {self.url}/models.config")
            if changed == config or self._write_config(changed, condition):
                return
        raise ArtifactError(f"{self.url}/models.config is changed by others all the time; try again")

    def publish(
        self, folder: ModelsFolder, versions: Sequence[Version], labels: Mapping[str, int], report: Report
    ) -> None:
        """Copy versions of a model that the folder's models.config lists, enter them, and move labels."""
        for version in versions:
            if version.number not in folder.read_config().selected(version.model, {version.number}):
                raise ArtifactError(
                    f"version {version.number} is not entered in {folder.config_path}; "
                    f"`digits models verify {version.number}` does it"
                )
            self.push(version, report)
        self.enter(versions, labels)

    def push(self, version: Version, report: Report) -> None:
        """Copy a version into the bucket, unless it is there. It is an error if it has other files there."""
        url = f"{self.url}/{_key(version)}"
        with _artifact_errors(url):
            manifest = Manifest.of(version.path)
            there = self._manifest(version)
            if there is None:
                self._upload(version, manifest, report)
                there = self._write_manifest(version, manifest)
        if there != manifest:
            raise ArtifactError(f"{url} has other files than {version.path}, and a version never changes")
        report(f"{url} is complete.")

    def pull(self, version: Version, check: Callable[[Path], None], report: Report) -> None:
        """Copy a version into its folder, which appears when it is complete. The caller holds a lock.

        `check` gets the folder of the complete files, and raises to refuse them. It is an error if the folder
        exists with other files.
        """
        path = version.path
        with _artifact_errors(f"{self.url}/{_key(version)}"):
            manifest = self._manifest(version)
            if manifest is None:
                raise ArtifactError("there is no such version, or no complete one")
            if not path.exists():
                staged = path.with_name(f"{_STAGED_PREFIX}{path.name}")
                self._download(version, manifest, staged, report)
                check(staged)
                _publish(staged, path)
            elif Manifest.of(path) != manifest:
                raise ArtifactError(f"{path} has other files; remove one of the two versions")
            else:
                check(path)
        report(f"{path} is complete.")

    def _read_config(self) -> tuple[ModelsConfig, dict[str, str]]:
        """Return models.config, and the condition that a write must name: nobody else has changed it."""
        path = f"{self._root}/models.config"
        with _artifact_errors(f"{self.url}/models.config"):
            try:
                tag = self._files.info(path).get("ETag")
                return ModelsConfig.parse(self._files.cat_file(path).decode()), {
                    "IfMatch": tag
                } if tag else {}
            except FileNotFoundError:
                return ModelsConfig.empty(), {"mode": "create"}

    def _write_config(self, config: ModelsConfig, condition: Mapping[str, str]) -> bool:
        """Write models.config; return False if the condition is not met. Without conditions, overwrite it."""
        with _artifact_errors(f"{self.url}/models.config"):
            try:
                self._files.pipe_file(f"{self._root}/models.config", str(config).encode(), **condition)
            except OSError:
                # Filesystems have different errors for an unmet condition.
                if self._read_config()[1] == condition:
                    raise
                return False
        return True

    def _manifest(self, version: Version) -> Manifest | None:
        try:
            return Manifest.parse(self._files.cat_file(f"{self._root}/{_key(version)}/{_MANIFEST}"))
        except FileNotFoundError:
            return None

    def _write_manifest(self, version: Version, manifest: Manifest) -> Manifest | None:
        """Write the manifest unless there is one; return that of the bucket."""
        try:
            path = f"{self._root}/{_key(version)}/{_MANIFEST}"
            self._files.pipe_file(path, manifest.text(), mode="create")
        except OSError:
            # Filesystems have different errors for a file that exists.
            there = self._manifest(version)
            if there is None:
                raise
            return there
        return manifest

    def _upload(self, version: Version, manifest: Manifest, report: Report) -> None:
        folder = self._folder(version, manifest)
        # An object appears when all its bytes have arrived, and the folder's name stands for its content.
        there = self._files.find(folder)
        missing = [path for path in manifest.sha256 if f"{folder}/{path}" not in there]
        report(f"Pushing {len(missing)} of {len(manifest.sha256)} files of version {version.number} ...")
        for path in missing:
            self._files.put_file(str(version.path / path), f"{folder}/{path}")

    def _download(self, version: Version, manifest: Manifest, staged: Path, report: Report) -> None:
        staged.mkdir(parents=True, exist_ok=True)
        there = Manifest.of(staged).sha256
        for path in there.keys() - manifest.sha256.keys():
            (staged / path).unlink()
        missing = [path for path, sha256 in manifest.sha256.items() if there.get(path) != sha256]
        report(f"Pulling {len(missing)} of {len(manifest.sha256)} files of version {version.number} ...")
        for path in missing:
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                self._files.get_file(f"{self._folder(version, manifest)}/{path}", str(staged / path))
            if not (staged / path).exists() or _sha256(staged / path) != manifest.sha256[path]:
                raise ArtifactError(
                    f"{path} is missing or damaged; remove the version there and push it again"
                )

    def _folder(self, version: Version, manifest: Manifest) -> str:
        return f"{self._root}/{_key(version)}/{hashlib.sha256(manifest.text()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Pull:
    """Copy of models from a bucket into a models folder, whose lock the caller holds."""

    bucket: Bucket
    folder: ModelsFolder
    check: Callable[[Path], None]
    """Check of a version's folder, which raises to refuse it."""
    report: Report

    def run(self, name: str | None, numbers: Sequence[int]) -> None:
        """Copy these versions; by default those that the bucket's models.config lists, and then its entries.

        `name` is that of the model, None for all models, or for the only one if there are numbers.
        """
        config = self.bucket.read_config()
        names = [name] if name else list(config.base_paths)
        if not names or not (numbers or config.listed(names[0])):
            raise ArtifactError(
                f"{self.bucket.url}/models.config names no version{f' of {name}' if name else ''}; "
                "`digits models push` enters one"
            )
        if numbers and len(names) > 1:
            raise ArtifactError(f"choose one of the models with --model: {', '.join(names)}")
        for each in names:
            for number in numbers or sorted(config.listed(each)):
                version = Version(each, number, self.folder.root / each / str(number))
                present = self.folder.versions(each).get(number, version)
                self.bucket.pull(present, self.check, self.report)
        if not numbers:
            self._enter(config, names)

    def _enter(self, config: ModelsConfig, names: Sequence[str]) -> None:
        """Replace the entries of these models by those of the bucket."""
        old = changed = self.folder.read_config()
        if not old.is_ours:
            raise ArtifactError(f"Digits did not write {self.folder.config_path}")
        for name in names:
            if name in changed.base_paths:
                changed = changed.without(name)
            changed = changed.with_versions(name, config.listed(name), self.folder.root.resolve() / name)
            for label, version in config.labels(name).items():
                changed = changed.with_label(name, label, version)
                if version != old.labels(name).get(label):
                    self.folder.remember(name, label)
        if changed != old:
            self.folder.write_config(changed)


def _with_entry(config: ModelsConfig, versions: Sequence[Version], labels: Mapping[str, int]) -> ModelsConfig:
    """Return the bucket's configuration that lists these versions of a model, too, and moves the labels."""
    name, numbers = versions[0].model, {version.number for version in versions}
    labels = {STABLE: min(numbers)} | config.labels(name) | dict(labels)
    newest = sorted(config.listed(name) | numbers)[-KEPT_VERSIONS:]
    config = config.with_versions(name, {*newest, *numbers, *labels.values()}, _SERVED_FOLDER / name)
    for label, number in labels.items():
        config = config.with_label(name, label, number)
    return config


def _key(version: Version) -> str:
    """Return the version's place below the bucket's folder."""
    return f"{version.model}/{version.number}"


@contextmanager
def _artifact_errors(url: str) -> Iterator[None]:
    """Turn every error into ArtifactError with the URL: filesystems raise those of their libraries."""
    try:
        yield
    except Exception as error:
        raise ArtifactError(f"{url}: {error}") from error


def _publish(staged: Path, path: Path) -> None:
    for file in staged.rglob("*"):
        fsync(file)
    fsync(staged)
    staged.rename(path)
    fsync(path.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
