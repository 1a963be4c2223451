"""Models folder: versions of one model or of many, models.config beside them, and the changes of labels.

    models/
    ├── models.changes.jsonl   each change of a label, with time, user and command; a rollback reads it
    ├── models.config          the versions to load, and their labels; a model server polls it
    ├── models.default         the name of the model that answers callers who name none
    ├── models.traffic.json    the share of requests that a label answers beside stable; a gateway polls it
    └── digits/                a model, with the folders of its versions
        ├── 1/
        └── 2/

Publishing adds a version to models.config, and moves no label unless the model has none. So publishing never
changes which version answers callers.
"""

import errno
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from digit_core.artifact import changes, traffic, verification
from digit_core.artifact.changes import Change
from digit_core.artifact.models_config import STABLE, ModelsConfig
from digit_core.artifact.task_card import NAME_RULE, READER_NAME, is_name
from digit_core.artifact.traffic import Traffic
from digit_core.artifact.versions import (
    ArtifactError,
    Version,
    list_versions,
    write_atomically,
    write_version,
)

KEPT_VERSIONS = 10
"""Newest versions of a model that stay loaded, in addition to those that a label or a rollback needs."""

_LOCK_SECONDS = 600.0
"""Longest wait for another process that publishes or promotes."""
_LOCK_RETRY_SECONDS = 0.1

_CHANGES_FILE = "models.changes.jsonl"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ModelsFolder:
    """A models folder. Methods raise ArtifactError, or OSError of the file system."""

    root: Path
    verify: Callable[[Path], None] = verification.verify
    """Verification of a version's folder, which raises ArtifactError to refuse it."""

    @property
    def config_path(self) -> Path:
        """Path of models.config."""
        return self.root / "models.config"

    @property
    def default_path(self) -> Path:
        """Path of models.default."""
        return self.root / "models.default"

    @property
    def traffic_path(self) -> Path:
        """Path of models.traffic.json."""
        return self.root / traffic.FILE

    def names(self) -> list[str]:
        """Return the names of the models that have a version, in alphabetical order."""
        if any((version.path / "saved_model.pb").exists() for version in list_versions(self.root).values()):
            raise ArtifactError(
                f"{self.root} has the versions of one model; name the folder of all models: "
                f"--models {self.root.parent}"
            )
        return [name for name in sorted(self._folders()) if _is_servable(name, self.versions(name))]

    def classifiers(self) -> list[str]:
        """Return the names of the models that answer callers: of all but the reader."""
        return [name for name in self.names() if name != READER_NAME]

    def left_out(self) -> dict[str, str]:
        """Return the reason why each model without an entry in models.config is not served, by its name."""
        names, served = self.names(), self.read_config().base_paths
        reasons = {}
        for name in sorted(self._folders() - served.keys()):
            number = max(self.versions(name))
            reason = f"version {number} is {self._defect(name, number)}"
            reasons[name] = reason if name in names else NAME_RULE
        return reasons

    def left_out_versions(self) -> list[str]:
        """Return a sentence on each unlisted version that has a label, or is newer than all listed ones."""
        config, sentences = self.read_config(), []
        for name in config.base_paths if config.is_ours else ():
            listed = config.listed(name)
            newer = {number for number in self.versions(name) if number > max(listed, default=0)}
            for number in sorted({*config.labels(name).values(), *newer} - listed):
                state = self._defect(name, number)
                sentences.append(f"Version {number} of the model {name} is not served: it is {state}.")
        return sentences

    def default(self) -> str | None:
        """Return the model that answers callers who name none, or None if no model has been chosen."""
        try:
            return self.default_path.read_text().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def set_default(self, name: str) -> None:
        """Choose the model that answers callers who name none."""
        with self.lock():
            write_atomically(self.default_path, f"{name}\n")

    def choose(self, name: str | None) -> str:
        """Return the name of a model that has a version; if it is None, of the only one beside the reader."""
        names = self.names()
        if not names:
            raise ArtifactError(
                f"{self.root} has no model; create one with `digits train` or `digits export`"
            )
        choices = self.classifiers() or names
        if name is None and len(choices) > 1:
            raise ArtifactError(
                f"{self.root} has several models; choose one with --model: {', '.join(names)}"
            )
        if name is not None and name not in names:
            raise ArtifactError(f"{self.root} has no model named {name}; it has {', '.join(names)}")
        return name or choices[0]

    def versions(self, name: str) -> dict[int, Version]:
        """Return the versions of a model by number, newest first, whether they are verified or not."""
        return list_versions(self.root / name)

    def version(self, name: str, number: int) -> Version:
        """Return a version of a model. Raise ArtifactError if it does not exist."""
        found = self.versions(name).get(number)
        if found is None:
            raise ArtifactError(f"version {number} does not exist in {self.root / name}")
        return found

    def place(self, name: str, number: int) -> Version:
        """Return a version of a model, which need not exist. Folders that do may have leading zeros."""
        place = Version(name, number, self.root / name / str(number))
        return self.versions(name).get(number, place)

    def labelled(self, name: str, label: str = STABLE) -> Version | None:
        """Return the version with a label, if one has it. Raise ArtifactError if its folder is missing."""
        number = self.read_config().labels(name).get(label)
        return None if number is None else self.version(name, number)

    def read_config(self) -> ModelsConfig:
        """Return models.config; one without models if the file does not exist."""
        try:
            return ModelsConfig.parse(self.config_path.read_text())
        except FileNotFoundError:
            return ModelsConfig.empty()
        except (ArtifactError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{self.config_path}: {error}") from error

    def read_traffic(self) -> Traffic:
        """Return models.traffic.json; no shares if the file does not exist."""
        try:
            return traffic.parse(self.traffic_path.read_text())
        except FileNotFoundError:
            return {}

    def write_traffic(self, shares: Traffic) -> None:
        """Replace models.traffic.json as a whole, and record the changes. The caller holds the lock."""
        old = self.read_traffic()
        write_atomically(self.traffic_path, json.dumps(shares, indent=2) + "\n")
        self._record(changes.of_shares(old, shares, self.read_config().labels))

    def write_config(self, config: ModelsConfig) -> None:
        """Replace models.config, and record the changes of labels. The caller holds the lock."""
        try:
            old = self.read_config()
        except ArtifactError:
            old = config  # a damaged file names no labels
        write_atomically(self.config_path, str(config))
        self._record(changes.between(old, config))

    def changes(self) -> list[Change]:
        """Return the changes of labels, oldest first."""
        return [*changes.parse(self._read_changes())]

    @contextmanager
    def lock(self, timeout: float = _LOCK_SECONDS) -> Iterator[None]:
        """Hold the folder's exclusive lock between processes during the block; it ends with the process.

        A read-only folder has no lock, since every change of it fails.
        """
        end = time.monotonic() + timeout
        if not self.root.is_dir():
            raise ArtifactError(f"the folder {self.root} does not exist")
        try:
            lock = (self.root / ".models.lock").open("w")
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            yield
            return
        with lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        message = f"{self.root} has been locked by another process for {timeout:g} s"
                        raise ArtifactError(f"{message}; try again later") from None
                time.sleep(_LOCK_RETRY_SECONDS)
            yield

    def publish(self, name: str, write: Callable[[Path], None]) -> Version:
        """Write the next version of a model into the folder that `write` gets, verify it, and enter it.

        Raise ArtifactError, and publish nothing, if the version can't be loaded or fails to answer.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with self.lock():
            version = write_version(self.root / name, write, self.verify)
            self._enter(self.read_config(), version)
        return version

    def enter(self, config: ModelsConfig, version: Version) -> ModelsConfig:
        """Verify a version that was copied into the folder, enter it, and return the configuration with it.

        The first version of a model that is entered gets the label `stable`. A model server loads the
        version, beside the others, within its poll. A version that is entered already is left alone. The
        caller holds the lock, under which it has read `config`.
        """
        if version.number in config.selected(version.model, {version.number}):
            return config
        self.verify(version.path)
        return self._enter(config, version)

    def prepare(self, report: Report, load: Collection[str] = (), timeout: float = _LOCK_SECONDS) -> bool:
        """Bring models.config up to date for a model server that starts on this machine; True if it changed.

        Correct the folders of the models, which may have been copied from elsewhere. Omit versions and models
        whose files are missing or damaged: the server would not start. Load each version of the models `load`
        in turn, and omit those that fail. `report` gets a sentence for each. `timeout` in seconds bounds the
        wait for the lock.
        """
        ignored = self._folders() - {*self.names()}
        for name in sorted(ignored):
            remedy = "publish the model under another: `digits export … --rename NAME`"
            report(f"{self.root / name} is not served: {NAME_RULE}; {remedy}")
        with self.lock(timeout):
            old = config = self.read_config()
            if not config.is_ours:
                return False
            for name in config.base_paths.keys() & ignored:
                config = config.without(name)
            for name in sorted(config.base_paths):
                config = self._prepare_model(config, name, report, name in load)
            if config == old and self.config_path.exists():
                return False
            self.write_config(config)
            return True

    def adopt(self, name: str, report: Report) -> None:
        """Enter the newest version that can be served of a model without an entry, after `prepare`."""
        with self.lock():
            config = self.read_config()
            if name in config.base_paths or not config.is_ours:
                return
            for version in self.versions(name).values():
                try:
                    self.enter(config, version)
                except ArtifactError as error:
                    report(str(error))
                    continue
                report(f"Version {version.number} of {name} is stable: no other version of it was served.")
                return

    def remove(self, name: str) -> None:
        """Remove a model's versions, its folder and its shares. The caller holds the lock."""
        for version in self.versions(name).values():
            version.remove()
        shutil.rmtree(self.root / name)
        if name in (shares := self.read_traffic()):
            self.write_traffic({key: value for key, value in shares.items() if key != name})

    def previous(self, name: str, label: str, current: int | None) -> int | None:
        """Return the version that had a label before its current one, or None if that is unknown."""
        own = (change for change in self.changes() if (change.model, change.label) == (name, label))
        return changes.previous(own, current)

    def needed(self, name: str, labels: Mapping[str, int]) -> set[int]:
        """Return the versions of a model that have one of its labels, or that a rollback would give one."""
        previous = (self.previous(name, label, number) for label, number in labels.items())
        return {*labels.values(), *filter(None, previous)}

    def _folders(self) -> set[str]:
        """Return the names of the folders that have versions."""
        return {path.name for path in self.root.glob("*/") if list_versions(path)}

    def _enter(self, config: ModelsConfig, version: Version) -> ModelsConfig:
        """Enter a verified version, unless the file is not ours. The caller holds the lock."""
        if config.is_ours:
            config = self._with_entry(config, version)
            self.write_config(config)
        return config

    def _with_entry(self, config: ModelsConfig, version: Version) -> ModelsConfig:
        """Return the configuration that also loads a version, and no more versions than are kept."""
        name, published = version.model, self.versions(version.model)
        loaded = sorted({*config.selected(name, published), version.number}, reverse=True)
        needed = self.needed(name, config.labels(name)) & {*loaded}
        kept = {*loaded[:KEPT_VERSIONS], version.number, *needed}
        config = config.with_versions(name, kept, self._base_path(config, name))
        return config if STABLE in config.labels(name) else config.with_label(name, STABLE, version.number)

    def _base_path(self, config: ModelsConfig, name: str) -> Path:
        """Return the folder of a model as the model server sees it: beside the other models' folders."""
        others = list(config.base_paths.values())
        return config.base_paths.get(name) or (others[0].parent if others else self.root.resolve()) / name

    def _prepare_model(self, config: ModelsConfig, name: str, report: Report, load: bool) -> ModelsConfig:
        published, listed = self.versions(name), config.listed(name)
        failures = {n: why for n in sorted(listed) if (why := self._failure(self.place(name, n), load))}
        for number, failure in failures.items():
            others = published.keys() - failures.keys()
            other = next((each for each in others if each in listed or not published[each].defect()), None)
            labels = [label for label, labelled in config.labels(name).items() if labelled == number]
            remedy = f"once it is restored, run `digits models verify {number} --model {name}`"
            if labels and other is None:
                remedy += ", or publish another version"
            elif labels:
                option = "" if STABLE in labels else f" --version-label {labels[0]}"
                promotion = f"`digits models promote N --model {name}{option}`"
                remedy = f"label {', '.join(labels)} needs another version: {promotion}"
            report(f"{failure}, so it is not served; {remedy}")
        if listed == failures.keys():
            report(f"{name} has no version to serve; its entry in {self.config_path} is removed")
            return config.without(name)
        return config.with_versions(name, listed - failures.keys(), self.root.resolve() / name)

    def _defect(self, name: str, number: int) -> str:
        """Return why an unlisted version is not served. Checksums would take too long for probes."""
        if not self.place(name, number).is_complete:
            return "missing or incomplete"
        remedy = f"`digits models verify {number} --model {name}` adds it, or says why not"
        return f"not in models.config; {remedy}"

    def _failure(self, version: Version, load: bool) -> str:
        """Return a sentence about a version that can't be served, "" about one that can."""
        if defect := version.defect():
            return f"{version.path} is {defect}"
        try:
            if load:
                self.verify(version.path)
        except ArtifactError as error:
            return str(error)
        return ""

    def _record(self, made: Iterable[Change]) -> None:
        if lines := [f"{change}\n" for change in made]:
            # Rewrite the file, as models.config: another user may not append to this one's file.
            write_atomically(self.root / _CHANGES_FILE, "".join([self._read_changes(), *lines]))

    def _read_changes(self) -> str:
        try:
            return (self.root / _CHANGES_FILE).read_text()
        except FileNotFoundError:
            return ""


def _is_servable(name: str, versions: Mapping[int, Version]) -> bool:
    """True if a model may have this name. The reader's is not for classifiers, which have a task card."""
    is_reader = name == READER_NAME
    return is_name(name) and not (is_reader and any("task" in each.card() for each in versions.values()))
