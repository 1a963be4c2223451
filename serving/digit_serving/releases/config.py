"""The content of models.config: which versions are loaded, what the labels mean, and what they meant before.

It is TensorFlow Serving's own file, a text-format protocol buffer. What a label meant before is in a comment
of the same file, so that one rename changes both.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from google.protobuf import text_format

from digit_client.protos import ModelServerConfig
from digit_serving.releases.errors import ReleaseError

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
