"""The published versions on the disk: their cards, their sizes, and their removal."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digit_serving.releases.config_file import sync

_REMOVED = ".removing-"


@dataclass(frozen=True, slots=True)
class Published:
    """A version's folder. `number` is what the model server makes of its name."""

    number: int
    path: Path

    def card(self) -> dict[str, Any]:
        """What training wrote about it; empty where it wrote nothing that can be read."""
        try:
            card = json.loads((self.path / "assets.extra" / "model.json").read_text())
        except (OSError, ValueError):
            return {}
        return card if isinstance(card, dict) else {}

    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def remove(self) -> None:
        """A server that watches sees it whole or not at all: its name goes first, in one step."""
        leftover = self.path.rename(self.path.with_name(_REMOVED + self.path.name))
        sync(leftover.parent)
        shutil.rmtree(leftover)


def published(models: Path) -> dict[int, Published]:
    """Every version in the folder by its number, the newest first."""
    paths = [path for path in models.glob("*/") if path.name.isascii() and path.name.isdigit()]
    found = {int(path.name): Published(int(path.name), path) for path in paths}
    return dict(sorted(found.items(), reverse=True))


def clear(models: Path) -> None:
    """Removes what a removal left that was cut off."""
    for leftover in models.glob(f"{_REMOVED}*/"):
        shutil.rmtree(leftover)
