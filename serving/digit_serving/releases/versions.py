"""Published models and versions on disk: names, model cards, sizes and removal."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digit_client import DIGITS, TaskCard, TaskCardError
from digit_serving.releases.config import ReleaseError, find_config, fsync

_REMOVED_PREFIX = ".removing-"


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """Folder of a model's versions. `root` is the folder of the models.config that lists the model."""

    name: str
    path: Path
    root: Path


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """Folder of a version. `number` is the folder's name as the model server reads it: 0007 is 7."""

    number: int
    path: Path

    def card(self) -> dict[str, Any]:
        """Return the model card; empty if it is missing or unreadable."""
        try:
            card = json.loads((self.path / "assets.extra" / "model.json").read_text())
        except (OSError, ValueError):
            return {}
        return card if isinstance(card, dict) else {}

    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def remove(self) -> None:
        """Rename the folder, then delete it, so that a model server never sees a part of the version."""
        removed = self.path.rename(self.path.with_name(_REMOVED_PREFIX + self.path.name))
        fsync(removed.parent)
        shutil.rmtree(removed)


def list_models(root: Path) -> list[PublishedModel]:
    """Return the model whose versions are in the folder, or else those in its subfolders, by name.

    Raises ReleaseError if two subfolders have models of the same name, or a task card is invalid.
    """
    if list_versions(root):
        return [PublishedModel(_model_name(root), root, find_config(root).path.parent)]
    folders = [path for path in root.glob("*/") if list_versions(path)]
    models: dict[str, PublishedModel] = {}
    for folder in folders:
        name = _model_name(folder)
        if name in models:
            raise ReleaseError(f"{models[name].path} and {folder} have models of the same name, {name}")
        models[name] = PublishedModel(name, folder, root)
    return [models[name] for name in sorted(models)]


def find_model(root: Path, name: str | None) -> PublishedModel:
    """Return the folder's model of this name, or its only model. Raises ReleaseError if there is none."""
    models = {model.name: model for model in list_models(root)}
    if not models:
        raise ReleaseError(f"{root} has no model; create one with `digits train` or `digits export`")
    if name is None and len(models) > 1:
        raise ReleaseError(f"{root} has several models; choose one with --model: {', '.join(models)}")
    found = models.get(name) if name else next(iter(models.values()))
    if found is None:
        raise ReleaseError(f"{root} has no model named {name}, but {', '.join(models)}")
    return found


def list_versions(models: Path) -> dict[int, PublishedVersion]:
    """Return every version in the folder by its number, newest first."""
    paths = [path for path in models.glob("*/") if path.name.isascii() and path.name.isdigit()]
    found = {int(path.name): PublishedVersion(int(path.name), path) for path in paths}
    return dict(sorted(found.items(), reverse=True))


def remove_leftovers(models: Path) -> None:
    """Delete what interrupted removals have left."""
    for leftover in models.glob(f"{_REMOVED_PREFIX}*/"):
        shutil.rmtree(leftover)


def _model_name(folder: Path) -> str:
    """Return the name of the task in the newest model card; a version may be damaged and lack its card."""
    for version in list_versions(folder).values():
        if card := version.card():
            return _task_name(card, version.path)
    return DIGITS.name


def _task_name(card: dict[str, Any], path: Path) -> str:
    if "task" not in card:
        return DIGITS.name
    task = card["task"]
    try:
        return TaskCard.from_document(task if isinstance(task, dict) else {}).name
    except TaskCardError as error:
        raise ReleaseError(f"{path} has an invalid task card in its model.json: {error}") from error
