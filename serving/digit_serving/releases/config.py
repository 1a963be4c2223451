"""models.config: the model server's configuration, which holds versions to load, labels and label history."""

import fcntl
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
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

    def with_models(self, models: Mapping[str, Path]) -> Self:
        """Return the configuration that lists these models in their folders.

        Listed models keep versions and labels. Other entries stay, unless their folder has no version or is
        that of one of `models`: the model server does not start until each model has a version.
        """
        changed, listed = self._copy(), self.base_paths
        entries = changed.message.model_config_list.config
        for entry in [entry for entry in entries if entry.name not in models]:
            base_path = Path(entry.base_path)
            if base_path in models.values() or not any(p.name.isdigit() for p in base_path.glob("*/")):
                entries.remove(entry)
        for name, base_path in models.items():
            if name in listed:
                changed._model(name).base_path = str(base_path)
            else:
                entries.add(name=name, base_path=str(base_path), model_platform="tensorflow")
        kept = self.histories.keys() & changed.base_paths.keys()
        return replace(changed, histories={name: self.histories[name] for name in kept})

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
        """Return the file's text. Raises ReleaseError if the file does not exist."""
        try:
            return self.path.read_text()
        except FileNotFoundError:
            raise ReleaseError(
                f"{self.path} does not exist; `digits up` and `docker compose up` create it"
            ) from None

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
        end = time.monotonic() + timeout
        # A separate lock file: each write replaces the inode of models.config.
        try:
            lock = self.path.with_name(".models.config.lock").open("w")
        except FileNotFoundError:
            raise ReleaseError(f"the folder {self.path.parent} does not exist") from None
        with lock:
            while not _try_lock(lock.fileno()):
                if time.monotonic() > end:
                    raise ReleaseError(f"{self.path} has been locked by another process for {timeout:g} s")
                time.sleep(_LOCK_RETRY_SECONDS)
            yield

    def write(self, text: str) -> None:
        """Replace the file atomically and durably. The caller holds the lock."""
        new = self.path.with_name(".models.config.new")
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        fsync_folder(self.path.parent)


def ensure_config(folder: Path, models: Mapping[str, Path]) -> ConfigFile:
    """Create the folder's models.config if it is missing; correct its models and their base paths.

    `models` maps each name to its folder of versions. A model that is new to the file keeps the labels of a
    models.config in its own folder. Raises OSError if `folder` is read-only, and ReleaseError if a file is
    invalid or locked.
    """
    file = ConfigFile(folder)
    with file.lock(_ENSURE_TIMEOUT):
        old = file.read() if file.path.exists() else ModelsConfig.of_newest({})
        new = old.with_models({name: path.resolve() for name, path in models.items()})
        for name in models.keys() - old.base_paths.keys():
            own = ConfigFile(models[name])
            if own.path.exists() and name in (config := own.read()).base_paths:
                new = new.with_release(name, config)
        if new != old or not file.path.exists():
            file.write(str(new))
    return file


def fsync_folder(folder: Path) -> None:
    """Block until the folder's entries (created, renamed, removed) are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
