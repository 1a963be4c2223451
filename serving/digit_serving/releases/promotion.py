"""Promotion and rollback: move a label between versions without a gap in service."""

from collections.abc import Callable
from dataclasses import dataclass

from digit_client.tfserving.connection import Connection
from digit_serving.releases.config import ConfigFile, ModelsConfig, ReleaseError
from digit_serving.releases.readiness import ReadinessWaiter
from digit_serving.releases.versions import PublishedModel, list_versions


@dataclass(frozen=True, slots=True)
class Promoter:
    """Moves a model's labels: load the version, wait, move the label, verify, unload unlabelled versions.

    If a step fails or `timeout` seconds pass, models.config is restored. `server` is None if the model server
    is not running: then only models.config changes. `report` gets one line for each step.
    """

    model: PublishedModel
    server: Connection | None
    timeout: float
    report: Callable[[str], None]

    def promote(self, version: int, label: str) -> None:
        """Put the label on the version. Raises ReleaseError, or DigitError if the server does not answer."""
        self._move(label, lambda config: config.promote(self.model.name, version, label))

    def roll_back(self, label: str) -> None:
        """Put the label on its previous version. Raises as `promote` does."""
        self._move(label, lambda config: config.roll_back(self.model.name, label))

    def _move(self, label: str, change: Callable[[ModelsConfig], ModelsConfig]) -> None:
        file, name, path = ConfigFile(self.model.root), self.model.name, self.model.path
        with file.lock(self.timeout):
            old = file.read()
            new = change(old)
            version = new.labels(name)[label]
            if version not in list_versions(path):
                raise ReleaseError(f"version {version} does not exist in {path}")
            if self.server:
                self._apply(ReadinessWaiter(self.server, name, self.timeout), file, old, new, label)
            # Unload versions without a label: a call without a version or label gets the newest one loaded.
            file.write(str(new.with_versions(name, new.labels(name).values())))
        self.report(f"Version {version} is {label}.")

    def _apply(
        self, waiter: ReadinessWaiter, file: ConfigFile, old: ModelsConfig, new: ModelsConfig, label: str
    ) -> None:
        """Load the version beside the others, then move the label; restore the file on failure."""
        name, text = self.model.name, file.read_text()
        version, selected = (
            new.labels(name)[label],
            old.versions_to_load(name, list_versions(self.model.path)),
        )
        statuses = waiter.statuses()
        # The status may hold the error of an earlier attempt to load the version. If the file already selects
        # the version, no new attempt begins, and the error counts.
        stale = None if version in selected else statuses.get(version)
        try:
            if version not in selected:
                file.write(str(old.with_versions(name, {*selected, version})))
            self.report(f"Waiting for the model server to load version {version} ...")
            waiter.wait_until_loaded(version, stale)
            file.write(str(new.with_versions(name, {*selected, version})))
            self.report(f"Waiting for the model server to move label {label} to version {version} ...")
            waiter.wait_until_labelled(label, version)
        except BaseException:
            file.write(text)
            self.report(f"Restored {file.path}.")
            raise
