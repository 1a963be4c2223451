"""The published versions on the disk: their cards, their sizes, and their removal."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from digit_client.tfserving.model_server import ModelServer
from digit_serving.releases.config import ConfigFile, sync
from digit_serving.releases.readiness import Watch

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


def prune(models: Path, server: ModelServer, keep: int, seconds: float, say: Callable[[str], None]) -> None:
    """Removes all but the newest `keep` and those that have a label, had it before, or are served.

    Raises ReleaseError, or DigitError where no server tells what it serves: then nothing is removed.
    """
    file = ConfigFile(models)
    with file.locked(seconds):
        config, found = file.read(), published(models)
        known = Watch(server, seconds).versions().values()
        needed = {
            *config.labels.values(),
            *(versions[-1] for versions in config.earlier.values()),
            *config.wanted(found),
            *(status.version for status in known if status.state != "END"),
        }
        spared = {*islice(found, keep), *needed}
        clear(models)
        for number, version in found.items():
            if number not in spared:
                size = version.size()
                version.remove()
                say(f"Removed {version.path}, {size / 1e6:.1f} MB")
    kept = sorted(spared & found.keys())
    say(f"Kept {', '.join(map(str, kept))}.")
