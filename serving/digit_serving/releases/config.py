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

from digit_client.tfserving.protos import ModelServerConfig

MODEL_NAME = "digits"

_HEADER = "# Changed by `digits models promote` and `digits models rollback`.\n"
_HISTORY = "# Earlier, {label} was: {versions}\n"
_HISTORY_PATTERN = re.compile(r"^# Earlier, (\w+) was: (\d+(?: \d+)*)$", re.MULTILINE | re.ASCII)
_LABEL = re.compile(r"\w+", re.ASCII)
_MAX_HISTORY = 10
"""Versions remembered for each label."""
_LOCK_RETRY_SECONDS = 0.1
_ENSURE_TIMEOUT = 10.0
"""Seconds that `ensure_config` waits for the lock."""


class ReleaseError(Exception):
    """Failed change or lookup of a release. The message is one line for a terminal."""


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """Content of models.config. Changes return a new object."""

    message: Any
    """The file's ModelServerConfig."""
    history: Mapping[str, tuple[int, ...]]
    """Previous versions of each label, oldest first."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of a file. Raises ReleaseError if it is no ModelServerConfig or lacks the model."""
        try:
            message = text_format.Parse(text, ModelServerConfig())
        except text_format.ParseError as error:
            raise ReleaseError(f"invalid model server configuration: {error}") from error
        if MODEL_NAME not in (model.name for model in message.model_config_list.config):
            raise ReleaseError(f"no model named {MODEL_NAME}")
        history = {label: tuple(map(int, found.split())) for label, found in _HISTORY_PATTERN.findall(text)}
        return cls(message, history)

    @classmethod
    def of_newest(cls, base_path: Path) -> Self:
        """Return a configuration without labels, which loads the newest version only."""
        model = {"name": MODEL_NAME, "base_path": str(base_path), "model_platform": "tensorflow"}
        return cls(ModelServerConfig(model_config_list={"config": [model]}), {})

    def __str__(self) -> str:
        history = "".join(
            _HISTORY.format(label=label, versions=" ".join(map(str, versions)))
            for label, versions in sorted(self.history.items())
        )
        return _HEADER + history + text_format.MessageToString(self.message)

    @property
    def base_path(self) -> Path:
        """Folder of versions, as the model server sees it."""
        return Path(self._model.base_path)

    @property
    def labels(self) -> dict[str, int]:
        """Version of each label."""
        return dict(self._model.version_labels)

    def versions_to_load(self, published: Collection[int]) -> set[int]:
        """Return the published versions that the version policy selects."""
        policy = self._model.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "all":
            return set(published)
        if kind == "specific":
            return set(published) & set(policy.specific.versions)
        return set(sorted(published)[-max(policy.latest.num_versions, 1) :])

    def with_base_path(self, base_path: Path) -> Self:
        """Return the configuration for another folder of versions."""
        changed = self._copy()
        changed._model.base_path = str(base_path)
        return changed

    def with_versions(self, versions: Collection[int]) -> Self:
        """Return the configuration that loads exactly these versions."""
        changed = self._copy()
        changed._model.model_version_policy.specific.versions[:] = sorted(versions)
        return changed

    def promote(self, version: int, label: str) -> Self:
        """Return the configuration with the label on the version, and the label's old version in the history.

        Raises ReleaseError for an invalid label.
        """
        if not _LABEL.fullmatch(label):
            raise ReleaseError(f"{label!r} is not a label; a label has letters, digits and underscores only")
        current = self.labels.get(label)
        history = self.history.get(label, ())
        if current not in (None, version):
            history = (*history, current)[-_MAX_HISTORY:]
        return self._with_label(label, version, history)

    def roll_back(self, label: str) -> Self:
        """Return the configuration with the label on its previous version.

        Raises ReleaseError if the label has no previous version.
        """
        history = self.history.get(label, ())
        if not history:
            raise ReleaseError(f"label {label} has no previous version")
        return self._with_label(label, history[-1], history[:-1])

    def _with_label(self, label: str, version: int, history: tuple[int, ...]) -> Self:
        changed = self._copy()
        changed._model.version_labels[label] = version
        histories = {**self.history, label: history}
        return replace(changed, history={name: versions for name, versions in histories.items() if versions})

    def _copy(self) -> Self:
        message = ModelServerConfig()
        message.CopyFrom(self.message)
        return replace(self, message=message)

    @property
    def _model(self) -> Any:
        return next(m for m in self.message.model_config_list.config if m.name == MODEL_NAME)


class ConfigFile:
    """models.config in a folder of versions, which the model server polls."""

    def __init__(self, models: Path) -> None:
        self.path = models / "models.config"

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


def ensure_config(models: Path) -> ConfigFile:
    """Create the folder's models.config if it is missing; correct its base path if the folder has moved.

    Raises OSError if the folder is read-only, and ReleaseError if the file is invalid or locked.
    """
    file, base_path = ConfigFile(models), models.resolve()
    with file.lock(_ENSURE_TIMEOUT):
        if not file.path.exists():
            file.write(str(ModelsConfig.of_newest(base_path)))
        elif (config := file.read()).base_path != base_path:
            file.write(str(config.with_base_path(base_path)))
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
