"""Removing versions that nobody needs."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from digit_client.model_server import ModelServer
from digit_serving.releases.config_file import ConfigFile
from digit_serving.releases.published import clear, published
from digit_serving.releases.watch import Watch


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
