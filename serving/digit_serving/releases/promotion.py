"""Promotion and rollback: move a label between versions without a gap in service."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from digit_client.tfserving.model_server import ModelServer
from digit_serving.releases.config import ConfigFile, ModelsConfig, ReleaseError
from digit_serving.releases.readiness import ReadinessWaiter
from digit_serving.releases.versions import list_versions


@dataclass(frozen=True, slots=True)
class Promoter:
    """Moves labels: load the version, wait, move the label, verify, unload versions without a label.

    If a step fails or `timeout` seconds pass, models.config is restored. Without a server, for one that is
    not running, only models.config is changed. `report` gets one line for each step.
    """

    models: Path
    server: ModelServer | None
    timeout: float
    report: Callable[[str], None]

    def promote(self, version: int, label: str) -> None:
        """Put the label on the version. Raises ReleaseError, or DigitError if the server does not answer."""
        self._move(label, lambda config: config.promote(version, label))

    def roll_back(self, label: str) -> None:
        """Put the label on its previous version. Raises as `promote` does."""
        self._move(label, lambda config: config.roll_back(label))

    def _move(self, label: str, change: Callable[[ModelsConfig], ModelsConfig]) -> None:
        file = ConfigFile(self.models)
        with file.lock(self.timeout):
            old = file.read()
            new = change(old)
            version = new.labels[label]
            if version not in list_versions(self.models):
                raise ReleaseError(f"version {version} does not exist in {self.models}")
            if self.server:
                self._apply(ReadinessWaiter(self.server, self.timeout), file, old, new, label)
            # Unload the others: callers without a version or label get the newest version that is loaded.
            file.write(str(new.with_versions(new.labels.values())))
        self.report(f"Version {version} is {label}.")

    def _apply(
        self, waiter: ReadinessWaiter, file: ConfigFile, old: ModelsConfig, new: ModelsConfig, label: str
    ) -> None:
        """Load the new version beside the loaded ones, then move the label; restore the file on failure."""
        text, version = file.read_text(), new.labels[label]
        loaded = old.versions_to_load(list_versions(self.models))
        stale = waiter.statuses().get(version)
        try:
            if version in loaded:
                # No new attempt to load begins, so an error in the status is current.
                stale = None
            else:
                file.write(str(old.with_versions({*loaded, version})))
            self.report(f"Waiting for the model server to load version {version} ...")
            waiter.wait_until_loaded(version, stale)
            file.write(str(new.with_versions({*loaded, version})))
            self.report(f"Waiting for the model server to move label {label} to version {version} ...")
            waiter.wait_until_labelled(label, version)
        except BaseException:
            file.write(text)
            self.report(f"Restored {file.path}.")
            raise
