"""Published versions on disk: model card, size and removal."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digit_serving.releases.config import fsync_folder

_REMOVED_PREFIX = ".removing-"


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
        fsync_folder(removed.parent)
        shutil.rmtree(removed)


def list_versions(models: Path) -> dict[int, PublishedVersion]:
    """Return every version in the folder by its number, newest first."""
    paths = [path for path in models.glob("*/") if path.name.isascii() and path.name.isdigit()]
    found = {int(path.name): PublishedVersion(int(path.name), path) for path in paths}
    return dict(sorted(found.items(), reverse=True))


def remove_leftovers(models: Path) -> None:
    """Delete what interrupted removals have left."""
    for leftover in models.glob(f"{_REMOVED_PREFIX}*/"):
        shutil.rmtree(leftover)
