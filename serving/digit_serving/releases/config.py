"""What can go wrong with a release; each message is one line for the person at the terminal."""

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


class ReleaseError(Exception):
    """Says what is wrong, and what was changed if anything was."""


MODEL_NAME = "digits"

_HEADER = "# Changed by `digits models promote` and `digits models rollback`.\n"
_EARLIER = "# Earlier, {label} was: {versions}\n"
_EARLIER_PATTERN = re.compile(r"^# Earlier, (\w+) was: (\d+(?: \d+)*)$", re.MULTILINE | re.ASCII)
_LABEL = re.compile(r"\w+", re.ASCII)
_REMEMBERED = 10


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """`earlier` has the versions that carried a label before the one that does, the last one last."""

    message: Any
    earlier: Mapping[str, tuple[int, ...]]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ReleaseError where the text is no configuration, or none of this model."""
        try:
            message = text_format.Parse(text, ModelServerConfig())
        except text_format.ParseError as error:
            raise ReleaseError(f"it is not what TensorFlow Serving reads: {error}") from error
        if MODEL_NAME not in (model.name for model in message.model_config_list.config):
            raise ReleaseError(f"it has no model {MODEL_NAME}")
        earlier = {label: tuple(map(int, found.split())) for label, found in _EARLIER_PATTERN.findall(text)}
        return cls(message, earlier)

    @classmethod
    def of_newest(cls, base_path: Path) -> Self:
        """What loads the newest version alone, and has no labels."""
        model = {"name": MODEL_NAME, "base_path": str(base_path), "model_platform": "tensorflow"}
        return cls(ModelServerConfig(model_config_list={"config": [model]}), {})

    def __str__(self) -> str:
        earlier = "".join(
            _EARLIER.format(label=label, versions=" ".join(map(str, versions)))
            for label, versions in sorted(self.earlier.items())
        )
        return _HEADER + earlier + text_format.MessageToString(self.message)

    @property
    def base_path(self) -> Path:
        """The folder of versions, as the model server sees it."""
        return Path(self._model.base_path)

    @property
    def labels(self) -> dict[str, int]:
        """The version that each label stands for."""
        return dict(self._model.version_labels)

    def wanted(self, published: Collection[int]) -> set[int]:
        """Those of the published versions that the server is to load."""
        policy = self._model.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "all":
            return set(published)
        if kind == "specific":
            return set(published) & set(policy.specific.versions)
        return set(sorted(published)[-max(policy.latest.num_versions, 1) :])

    def at(self, base_path: Path) -> Self:
        """The same for another folder."""
        changed = self._copy()
        changed._model.base_path = str(base_path)
        return changed

    def loading(self, versions: Collection[int]) -> Self:
        """The same with these versions loaded, and no others."""
        changed = self._copy()
        changed._model.model_version_policy.specific.versions[:] = sorted(versions)
        return changed

    def promoting(self, version: int, label: str) -> Self:
        """The same with the label on the version, and the one that it was on remembered.

        Raises ReleaseError for a label that is no word.
        """
        if not _LABEL.fullmatch(label):
            raise ReleaseError(f"{label!r} is no label: letters, digits and underscores make one")
        current = self.labels.get(label)
        before = self.earlier.get(label, ())
        if current not in (None, version):
            before = (*before, current)[-_REMEMBERED:]
        return self._labelled(label, version, before)

    def rolling_back(self, label: str) -> Self:
        """The same with the label on the version before; ReleaseError where none is remembered."""
        *before, version = self.earlier.get(label, ()) or (None,)
        if version is None:
            raise ReleaseError(f"nothing is known of a version that was {label} before")
        return self._labelled(label, version, tuple(before))

    def _labelled(self, label: str, version: int, before: tuple[int, ...]) -> Self:
        changed = self._copy()
        changed._model.version_labels[label] = version
        earlier = {**self.earlier, label: before}
        return replace(changed, earlier={name: versions for name, versions in earlier.items() if versions})

    def _copy(self) -> Self:
        message = ModelServerConfig()
        message.CopyFrom(self.message)
        return replace(self, message=message)

    @property
    def _model(self) -> Any:
        return next(m for m in self.message.model_config_list.config if m.name == MODEL_NAME)


_PAUSE = 0.1
_PATIENCE = 10.0


class ConfigFile:
    """The model server reads it again and again, so it is replaced, never written to."""

    def __init__(self, models: Path) -> None:
        self.path = models / "models.config"

    def text(self) -> str:
        """Raises ReleaseError where there is none."""
        try:
            return self.path.read_text()
        except FileNotFoundError:
            raise ReleaseError(
                f"there is no {self.path}: `digits up` makes it, and `docker compose up`"
            ) from None

    def read(self) -> ModelsConfig:
        """Raises ReleaseError where there is none, or where it is of no use."""
        text = self.text()
        try:
            return ModelsConfig.parse(text)
        except ReleaseError as error:
            raise ReleaseError(f"{self.path}: {error}") from error

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Keeps other processes from changing it during the block; ReleaseError if one of them takes longer.

        The lock goes with the process, however that ends.
        """
        end = time.monotonic() + seconds
        # Not the file itself: it is another one after each change.
        with self.path.with_name(".models.config.lock").open("w") as lock:
            while not _lock(lock.fileno()):
                if time.monotonic() > end:
                    raise ReleaseError(f"{self.path} is being changed by somebody else, after {seconds:g} s")
                time.sleep(_PAUSE)
            yield

    def write(self, text: str) -> None:
        """Replaces it, on the disk as well. Only for who has it locked."""
        new = self.path.with_name(".models.config.new")
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        sync(self.path.parent)


def prepared(models: Path) -> ConfigFile:
    """The folder's file: made where there is none, put right where the folder was moved. Raises OSError."""
    file, base_path = ConfigFile(models), models.resolve()
    with file.locked(_PATIENCE):
        if not file.path.exists():
            file.write(str(ModelsConfig.of_newest(base_path)))
        elif (config := file.read()).base_path != base_path:
            file.write(str(config.at(base_path)))
    return file


def sync(folder: Path) -> None:
    """Returns when the names in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
