"""models.config: the model server's configuration, which names the versions to load and their labels."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from google.protobuf import text_format

from digit_core.artifact.versions import ArtifactError
from digit_core.tfserving.protos import ModelServerConfig

STABLE = "stable"
"""Label of the version that answers callers who name none."""
LABELS = (STABLE, "canary")
"""Labels that releases use; a version on trial has the second one."""

_MARK = "# Written by Digits: change it with `digits models`.\n"
_LABEL = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """Content of models.config: for each model its folder, the versions to load, and their labels.

    Changes return a new object. A model without an entry has no versions and no labels.
    """

    message: Any
    """The file's ModelServerConfig."""
    is_ours: bool = True
    """True if Digits wrote the file, and may write it again."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of a file. Raise ArtifactError if it is not a ModelServerConfig."""
        try:
            message = text_format.Parse(text, ModelServerConfig())
        except text_format.ParseError as error:
            raise ArtifactError(f"invalid configuration of a model server: {error}") from error
        return cls(message, text.startswith(_MARK))

    @classmethod
    def empty(cls) -> Self:
        """Return the configuration of no model."""
        return cls(ModelServerConfig(model_config_list={}))

    def __str__(self) -> str:
        return _MARK + text_format.MessageToString(self.message)

    @property
    def base_paths(self) -> dict[str, Path]:
        """Folder of versions of each model, as the model server sees it."""
        return {entry.name: Path(entry.base_path) for entry in self.message.model_config_list.config}

    def labels(self, name: str) -> dict[str, int]:
        """Return the version of each label of a model."""
        entry = _find(self.message, name)
        return dict(entry.version_labels) if entry else {}

    def listed(self, name: str) -> set[int]:
        """Return the versions that the model's policy `specific` lists; none with another policy."""
        entry = _find(self.message, name)
        return set(entry.model_version_policy.specific.versions) if entry else set()

    def selected(self, name: str, published: Collection[int]) -> set[int]:
        """Return the published versions that the model's version policy selects."""
        entry = _find(self.message, name)
        return selected_by(entry.model_version_policy, published) if entry else set()

    def with_versions(self, name: str, versions: Collection[int], base_path: Path) -> Self:
        """Return the configuration that loads exactly these versions of a model from a folder.

        A model without an entry gets one.
        """
        changed = self._copy()
        entries = changed.message.model_config_list.config
        entry = _find(changed.message, name) or entries.add(name=name, model_platform="tensorflow")
        entry.base_path = str(base_path)
        entry.model_version_policy.specific.versions[:] = sorted(versions)
        return changed

    def with_label(self, name: str, label: str, version: int) -> Self:
        """Return the configuration with a label on a version of a model that has an entry.

        Raise ArtifactError for an invalid label.
        """
        if not _LABEL.fullmatch(label):
            raise ArtifactError(f"{label!r} is not a label; a label has letters, digits and underscores only")
        changed = self._copy()
        _find(changed.message, name).version_labels[label] = version
        return changed

    def without(self, name: str) -> Self:
        """Return the configuration without a model's entries."""
        changed = self._copy()
        while entry := _find(changed.message, name):
            changed.message.model_config_list.config.remove(entry)
        return changed

    def _copy(self) -> Self:
        message = ModelServerConfig()
        message.CopyFrom(self.message)
        return replace(self, message=message)


def selected_by(policy: Any, published: Collection[int]) -> set[int]:
    """Return the published versions that a ModelVersionPolicy selects, by default the latest one."""
    match policy.WhichOneof("policy_choice"):
        case "all":
            return set(published)
        case "specific":
            return set(published) & set(policy.specific.versions)
    return set(sorted(published)[-max(policy.latest.num_versions, 1) :])


def _find(message: Any, name: str) -> Any:
    """Return the entry of a model, None if there is none."""
    return next((entry for entry in message.model_config_list.config if entry.name == name), None)
