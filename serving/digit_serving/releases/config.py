"""models.config: the model server's configuration, which holds versions to load, labels and label history."""

import fcntl
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from google.protobuf import text_format

from digit_client import DIGITS
from digit_client.tfserving.protos import ModelServerConfig

_HEADER = "# Changed by `digits models promote` and `digits models rollback`.\n"
_HISTORY = "# Earlier, {model} {label} was: {versions}\n"
_HISTORY_PATTERN = re.compile(
    r"^# Earlier, (?:([\w-]+) )?(\w+) was: (\d+(?: \d+)*)$", re.MULTILINE | re.ASCII
)
_LABEL = re.compile(r"\w+", re.ASCII)
_MAX_HISTORY = 10
"""Versions remembered for each label."""
_LOCK_RETRY_SECONDS = 0.1
_ENSURE_TIMEOUT = 10.0
"""Seconds that `ensure_config` waits for the lock."""

History = Mapping[str, tuple[int, ...]]
"""Previous versions of each label of a model, oldest first."""


class ReleaseError(Exception):
    """Failed change or lookup of a release. The message is one line for a terminal."""


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """Content of models.config: one entry for each model. Changes return a new object.

    Methods that take a model's name raise ReleaseError if the file does not list the model.
    """

    message: Any
    """The file's ModelServerConfig."""
    histories: Mapping[str, History]
    """Label history of each model that has one."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of a file. Raises ReleaseError if it is no ModelServerConfig."""
        try:
            message = text_format.Parse(text, ModelServerConfig())
        except text_format.ParseError as error:
            raise ReleaseError(f"invalid model server configuration: {error}") from error
        # Earlier releases, which served the digits only, wrote lines without a model's name.
        histories: dict[str, dict[str, tuple[int, ...]]] = {}
        for model, label, versions in _HISTORY_PATTERN.findall(text):
            histories.setdefault(model or DIGITS.name, {})[label] = tuple(map(int, versions.split()))
        return cls(message, histories)

    @classmethod
    def of_newest(cls, models: Mapping[str, Path]) -> Self:
        """Return a configuration that loads the newest version of each model, without labels.

        `models` maps each name to the folder of versions, as the model server sees it.
        """
        return cls(ModelServerConfig(model_config_list={}), {}).with_models(models)

    def __str__(self) -> str:
        history = "".join(
            _HISTORY.format(model=model, label=label, versions=" ".join(map(str, versions)))
            for model, labels in sorted(self.histories.items())
            for label, versions in sorted(labels.items())
        )
        return _HEADER + history + text_format.MessageToString(self.message)

    @property
    def base_paths(self) -> dict[str, Path]:
        """Folder of versions of each model, as the model server sees it."""
        return {model.name: Path(model.base_path) for model in self.message.model_config_list.config}

    def choose(self, name: str | None) -> str:
        """Return the name, or that of the only model if it is None. Raises ReleaseError if neither exists."""
        names = list(self.base_paths)
        if name not in names and (name or len(names) != 1):
            raise ReleaseError(f"choose one of its models with --model: {', '.join(names) or 'it has none'}")
        return name or names[0]

    def labels(self, name: str) -> dict[str, int]:
        """Return the version of each label."""
        return dict(self._model(name).version_labels)

    def history(self, name: str) -> History:
        """Return the previous versions of each label, oldest first."""
        return self.histories.get(name, {})

    def versions_to_load(self, name: str, published: Collection[int]) -> set[int]:
        """Return the published versions that the model's version policy selects."""
        policy = self._model(name).model_version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "all":
            return set(published)
        if kind == "specific":
            return set(published) & set(policy.specific.versions)
        return set(sorted(published)[-max(policy.latest.num_versions, 1) :])

    def listed_versions(self, name: str) -> list[int] | None:
        """Return the versions that the policy `specific` lists, None if the model has another policy."""
        policy = self._model(name).model_version_policy
        return list(policy.specific.versions) if policy.WhichOneof("policy_choice") == "specific" else None

    def with_models(self, models: Mapping[str, Path]) -> Self:
        """Return the configuration that lists these models in their folders.

        The entry of a model is that of its folder, or else that of its name; it keeps versions, labels and
        history under the new name. Other entries stay, unless their folder has no version: the model server
        does not start until each model has a version.
        """
        names = {listed: name for name, listed in self._listed_names(models).items()}
        for name, base_path in self.base_paths.items():
            if name not in {*names, *models} and base_path not in models.values() and _has_version(base_path):
                names[name] = name
        changed = self._copy()
        entries = changed.message.model_config_list.config
        for entry in [entry for entry in entries if entry.name not in names]:
            entries.remove(entry)
        for entry in entries:
            entry.name = names[entry.name]
        for name, base_path in models.items():
            if name in names.values():
                changed._model(name).base_path = str(base_path)
            else:
                entries.add(name=name, base_path=str(base_path), model_platform="tensorflow")
        histories = {names[name]: history for name, history in self.histories.items() if name in names}
        return replace(changed, histories=histories)

    def with_release(self, name: str, other: "ModelsConfig") -> Self:
        """Return the configuration with another one's versions, labels and history of a model."""
        changed = self._copy()
        base_path = changed._model(name).base_path
        changed._model(name).CopyFrom(other._model(name))
        changed._model(name).base_path = base_path
        return replace(changed, histories={**self.histories, name: other.history(name)})

    def with_versions(self, name: str, versions: Collection[int]) -> Self:
        """Return the configuration that loads exactly these versions of the model."""
        changed = self._copy()
        changed._model(name).model_version_policy.specific.versions[:] = sorted(versions)
        return changed

    def promote(self, name: str, version: int, label: str) -> Self:
        """Return the configuration with the label on the version, and the label's old version in the history.

        Raises ReleaseError for an invalid label.
        """
        if not _LABEL.fullmatch(label):
            raise ReleaseError(f"{label!r} is not a label; a label has letters, digits and underscores only")
        current = self.labels(name).get(label)
        history = self.history(name).get(label, ())
        if current not in (None, version):
            history = (*history, current)[-_MAX_HISTORY:]
        return self._with_label(name, label, version, history)

    def roll_back(self, name: str, label: str) -> Self:
        """Return the configuration with the label on its previous version.

        Raises ReleaseError if the label has no previous version.
        """
        history = self.history(name).get(label, ())
        if not history:
            raise ReleaseError(f"label {label} has no previous version")
        return self._with_label(name, label, history[-1], history[:-1])

    def _with_label(self, name: str, label: str, version: int, history: tuple[int, ...]) -> Self:
        changed = self._copy()
        changed._model(name).version_labels[label] = version
        labels = {**self.history(name), label: history}
        kept = {label: versions for label, versions in labels.items() if versions}
        return replace(changed, histories={**self.histories, name: kept})

    def _listed_names(self, models: Mapping[str, Path]) -> dict[str, str]:
        """Return the name under which each model is listed so far."""
        listed, found = self.base_paths, dict[str, str]()
        for name, folder in models.items():
            of_folder = [other for other, base_path in listed.items() if base_path == folder]
            if of_folder:
                found[name] = name if name in of_folder else of_folder[0]
        moved = models.keys() & listed.keys() - found.keys() - set(found.values())
        return found | {name: name for name in moved}

    def _copy(self) -> Self:
        message = ModelServerConfig()
        message.CopyFrom(self.message)
        return replace(self, message=message)

    def _model(self, name: str) -> Any:
        for model in self.message.model_config_list.config:
            if model.name == name:
                return model
        raise ReleaseError(f"models.config has no model named {name}; `digits up` adds it when it starts")


class ConfigFile:
    """models.config in a folder of versions or of several models, which the model server polls."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "models.config"

    def read_text(self) -> str:
        """Return the file's text. Raises ReleaseError if the file does not exist or is not UTF-8."""
        try:
            return self.path.read_text()
        except FileNotFoundError:
            raise ReleaseError(
                f"{self.path} does not exist; `digits up` and `docker compose up` create it"
            ) from None
        except UnicodeDecodeError as error:
            raise ReleaseError(f"{self.path}: {error}") from error

    def read(self) -> ModelsConfig:
        """Return the parsed file. Raises ReleaseError if the file does not exist or is invalid."""
        text = self.read_text()
        try:
            return ModelsConfig.parse(text)
        except ReleaseError as error:
            raise ReleaseError(f"{self.path}: {error}") from error

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """Hold an exclusive lock between processes during the block.

        The lock ends with the process. Raises ReleaseError if the folder does not exist, or another process
        holds the lock for `timeout` seconds.
        """
        # A separate lock file: each write replaces the inode of models.config.
        with exclusive_lock(self.path.with_name(".models.config.lock"), self.path, timeout):
            yield

    def write(self, text: str) -> None:
        """Replace the file atomically and durably. The caller holds the lock."""
        new = self.path.with_name(".models.config.new")
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        fsync(self.path.parent)

    def move_away(self) -> Path:
        """Rename the file to models.config.moved, which no program reads, and return its new path."""
        moved = self.path.replace(self.path.with_name("models.config.moved"))
        fsync(moved.parent)
        return moved


def find_config(folder: Path) -> ConfigFile:
    """Return the models.config for a folder of versions: its own, or else its parent's that lists the folder.

    Raises ReleaseError if the parent's is needed and invalid.
    """
    own, shared = ConfigFile(folder), ConfigFile(folder.absolute().parent)
    if own.path.exists() or not shared.path.exists():
        return own
    return shared if folder.resolve() in shared.read().base_paths.values() else own


def ensure_config(folder: Path, models: Mapping[str, Path], report: Callable[[str], None]) -> ConfigFile:
    """Create the folder's models.config if it is missing; correct its models and their base paths.

    `models` maps each name to its folder of versions. A model that was served from another models.config (see
    `find_config`) keeps that file's versions, labels and history. If the other file lies in the model's own
    folder, it is moved away, so that commands find the live one; a read-only folder keeps it. `report` gets a
    line for each such model and each moved file.

    Raises OSError if `folder` is read-only, and ReleaseError if a file is invalid or locked.
    """
    file, root = ConfigFile(folder), folder.resolve()
    folders = {name: path.resolve() for name, path in models.items()}
    with file.lock(_ENSURE_TIMEOUT):
        old = file.read() if file.path.exists() else ModelsConfig.of_newest({})
        new = old.with_models(folders)
        others: dict[str, ConfigFile] = {}
        for name, path in folders.items():
            other = find_config(models[name])
            # A read-only folder keeps its file, which must not undo later changes at each start.
            is_done = path in old.base_paths.values() and not os.access(path, os.W_OK)
            if other.path.exists() and other.path.parent.resolve() != root and not is_done:
                others[name] = other
                new = new.with_release(name, other.read().with_models({name: path}))
        if new != old or not file.path.exists():
            file.write(str(new))
        for name, other in others.items():
            report(f"The labels of {name} are those of {other.path}.")
            if other.path.parent == models[name] and os.access(models[name], os.W_OK):
                report(f"{other.path} is not read any more; it is now {other.move_away().name}.")
    return file


@contextmanager
def exclusive_lock(lock_file: Path, protected: Path, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock between processes during the block; it ends with the process.

    Raises ReleaseError if the lock file's folder does not exist, or another process holds the lock for
    `timeout` seconds. `protected` is the path for the message.
    """
    end = time.monotonic() + timeout
    try:
        lock = lock_file.open("w")
    except FileNotFoundError:
        raise ReleaseError(f"the folder {lock_file.parent} does not exist") from None
    with lock:
        while not _try_lock(lock.fileno()):
            if time.monotonic() > end:
                raise ReleaseError(f"{protected} has been locked by another process for {timeout:g} s")
            time.sleep(_LOCK_RETRY_SECONDS)
        yield


def fsync(path: Path) -> None:
    """Block until the file's content, or the folder's entries (created, renamed, removed), are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _has_version(folder: Path) -> bool:
    return any(path.name.isdigit() for path in folder.glob("*/"))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
