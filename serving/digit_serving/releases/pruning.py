"""Pruning: removal of old versions that are not in use."""

from collections.abc import Callable
from itertools import islice

from digit_client.tfserving.connection import Connection
from digit_serving.releases.config import ConfigFile
from digit_serving.releases.readiness import ReadinessWaiter
from digit_serving.releases.versions import PublishedModel, list_versions, remove_leftovers


def prune(
    model: PublishedModel, server: Connection, keep: int, timeout: float, report: Callable[[str], None]
) -> None:
    """Remove a model's versions but the newest `keep`, those in use, and those that a rollback needs.

    A version is in use if it has a label, is to be loaded, or is known to the server and not unloaded.
    `timeout` is the wait for the lock in seconds; `report` gets one line for each removal.

    Raises ReleaseError, or DigitError if the server does not answer, before it removes anything.
    """
    file = ConfigFile(model.root)
    with file.lock(timeout):
        config, found = file.read(), list_versions(model.path)
        statuses = ReadinessWaiter(server, model.name, timeout).statuses().values()
        needed = {
            *config.labels(model.name).values(),
            *(versions[-1] for versions in config.history(model.name).values()),
            *config.versions_to_load(model.name, found),
            *(status.version for status in statuses if status.state != "END"),
        }
        retained = {*islice(found, keep), *needed}
        remove_leftovers(model.path)
        for number, version in found.items():
            if number not in retained:
                size = version.size()
                version.remove()
                report(f"Removed {version.path} ({size / 1e6:.1f} MB).")
    kept = sorted(retained & found.keys())
    report(f"Kept {', '.join(map(str, kept))}.")
