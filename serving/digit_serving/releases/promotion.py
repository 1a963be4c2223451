"""Promotion, rollback and removal: changes of models.config that a running service has to follow."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from digit_client import Client
from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import READER_NAME
from digit_core.artifact.versions import ArtifactError, Version, remove_leftovers
from digit_core.errors import AuthenticationError, DigitError, ModelNotFoundError
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import Connection

_CALL_TIMEOUT = 2.0
_POLL_SECONDS = 0.1
_ANSWERS = 8
"""Consecutive right answers that count: enough to reach every replica of a model server or gateway."""


@dataclass(frozen=True, slots=True)
class Service:
    """Service of the model `name`.

    Each wait raises ArtifactError after `timeout` seconds, and at once if the service refuses access.
    """

    name: str
    server: Connection
    gateway: Client | None
    timeout: float
    server_name: str = "the model server"
    """Words for the model server in messages, with its address."""

    def statuses(self) -> dict[int, VersionStatus]:
        """Return the status of each version that the model server knows. Raise DigitError if it fails."""
        try:
            found = self.server.versions(ModelRef(self.name), timeout=_CALL_TIMEOUT)
        except ModelNotFoundError:
            return {}
        return {status.version: status for status in found}

    def wait_until_loaded(self, version: int, stale: VersionStatus | None) -> None:
        """Wait until the version is available. Ignore the error of `stale`, the status of an earlier attempt.

        Raise ArtifactError if the version fails to load.
        """

        def is_loaded() -> bool:
            status = self.statuses().get(version)
            if status and status.error and status != stale:
                raise ArtifactError(f"{self.server_name} can't load version {version}: {status.error}")
            return bool(status and status.is_available)

        self._wait(is_loaded, f"{self.server_name} did not load version {version} (see its log)")

    def wait_until_unloaded(self, versions: Collection[int]) -> None:
        """Wait until none of the versions is loaded."""

        def is_unloaded() -> bool:
            return all(status.state == "END" for n, status in self.statuses().items() if n in versions)

        listed = ", ".join(map(str, sorted(versions)))
        self._wait(is_unloaded, f"{self.server_name} did not unload version {listed} (see its log)")

    def wait_until_labelled(self, label: str, version: int) -> None:
        """Wait until the model server resolves the label to the version, and the gateway answers with it."""
        model = ModelRef(self.name, version_label=label)
        self._wait(
            lambda: self.server.resolve(model, timeout=_CALL_TIMEOUT) == version,
            f"{self.server_name} did not move label {label} to version {version}",
        )
        gateway = self.gateway
        # A gateway answers no caller with the reader.
        if gateway and self.name != READER_NAME:
            task = self.server.task(ModelRef(self.name, version), timeout=self.timeout)
            blank = np.zeros(task.shape, np.uint8)
            self._wait(
                lambda: gateway.predict(blank, label=label).model_version == version,
                f"the gateway at {gateway.url} did not answer label {label} with version {version}",
            )

    def _wait(self, is_done: Callable[[], bool], failure: str) -> None:
        end, reason, answers = time.monotonic() + self.timeout, "", 0
        while time.monotonic() < end:
            try:
                answers = answers + 1 if is_done() else 0
                reason = ""
            except AuthenticationError as error:
                raise ArtifactError(f"{failure}: {error}") from error
            except DigitError as error:
                # A server may be starting: poll until the timeout.
                answers, reason = 0, f": {error}"
            if answers == _ANSWERS:
                return
            if not answers:
                time.sleep(_POLL_SECONDS)
        raise ArtifactError(f"{failure} within {self.timeout:g} s{reason}")


@dataclass(frozen=True, slots=True)
class Releases:
    """Versions of the model `name` in a models folder, and their service, None if no model server runs.

    A change waits until the service follows it. If the service does not, or a step fails, models.config is
    restored. `report` gets a sentence for each step. Methods raise ArtifactError, OSError, or DigitError if
    the model server does not answer.
    """

    folder: ModelsFolder
    name: str
    service: Service | None
    report: Callable[[str], None]
    force: bool = False
    """True to rewrite a models.config that Digits did not write."""

    def promote(self, number: int, label: str) -> None:
        """Put the label on a version, which is verified and entered first if models.config lacks it."""
        with self.folder.lock(), self._restoring():
            self._load(self.folder.version(self.name, number))
            self.folder.remember(self.name, label)
            self._move(label, number)
        self.report(f"Version {number} is {label}.")

    def roll_back(self, label: str) -> None:
        """Put the label on the version that had it before."""
        with self.folder.lock(), self._restoring():
            number = self.folder.previous(self.name, label)
            if number is None:
                raise ArtifactError(f"label {label} has no previous version")
            self._load(self.folder.version(self.name, number))
            # The history gets no entry of the version that is left: a rollback that is killed here, and then
            # repeated, would return to it.
            self._move(label, number)
            self.folder.forget(self.name, label)
        self.report(f"Version {number} is {label}.")

    def prune(self, keep: int) -> None:
        """Remove the versions but the newest `keep` and those that a label or a rollback needs.

        The model server unloads a version before its files are removed.
        """
        with self.folder.lock():
            found = self.folder.versions(self.name)
            with self._restoring() as config:
                entered = config.selected(self.name, found)
                # A damaged version, or one that is being copied, must not push a good one out.
                good = (number for number in found if number in entered or not found[number].defect())
                oldest = min(islice(good, keep), default=0)
                removed = {number for number in found if number < oldest} - self.folder.needed(self.name)
                if listed := config.listed(self.name) & removed:
                    kept, base_path = config.listed(self.name) - listed, config.base_paths[self.name]
                    self.folder.write_config(config.with_versions(self.name, kept, base_path))
                if self.service and removed:
                    self.report("Waiting for the model server to unload what is removed ...")
                    self.service.wait_until_unloaded(removed)
            remove_leftovers(self.folder.root / self.name)
            for number in sorted(removed):
                size = found[number].size()
                found[number].remove()
                self.report(f"Removed {found[number].path} ({size / 1e6:.1f} MB).")
        self.report(f"Kept {', '.join(map(str, sorted(found.keys() - removed)))}.")

    def remove(self) -> None:
        """Remove all versions of the model, and its entry in models.config.

        The model server unloads them before their files are removed. Raise ArtifactError if the model answers
        callers who name none.
        """
        folder, others = self.folder, [name for name in self.folder.names() if name != self.name]
        if folder.default() == self.name:
            raise ArtifactError(
                f"{self.name} answers callers who name no model; let another one do so first: "
                "`digits models default NAME`"
            )
        with folder.lock():
            found = folder.versions(self.name)
            with self._restoring() as config:
                if self.name in config.base_paths:
                    folder.write_config(config.without(self.name))
                if self.service:
                    self.report(f"Waiting for the model server to unload {self.name} ...")
                    self.service.wait_until_unloaded(found)
            folder.remove(self.name)
        self.report(f"Removed {self.name}. Left: {', '.join(others) or 'no model'}.")

    def _load(self, version: Version) -> None:
        """Enter the version, and wait until it is loaded. Versions that are loaded stay loaded."""
        folder, number = self.folder, version.number
        # The status may hold the error of an earlier attempt to load the version. If the file lists the
        # version, no new attempt begins, and the error counts.
        is_listed = number in folder.read_config().listed(self.name)
        statuses = self.service.statuses() if self.service else {}
        folder.enter(version)
        if self.service:
            self.report(f"Waiting for the model server to load version {number} ...")
            self.service.wait_until_loaded(number, None if is_listed else statuses.get(number))

    def _move(self, label: str, number: int) -> None:
        """Move the label to a loaded version, and wait until the service answers with it."""
        folder = self.folder
        folder.write_config(folder.read_config().with_label(self.name, label, number))
        if self.service:
            self.report(f"Waiting for the service to answer label {label} with version {number} ...")
            self.service.wait_until_labelled(label, number)

    @contextmanager
    def _restoring(self) -> Iterator[ModelsConfig]:
        """Restore models.config if the block fails. The caller holds the lock."""
        folder, old = self.folder, self._own_config()
        try:
            yield old
        except BaseException:
            if folder.read_config() != old:
                folder.write_config(old)
                self.report(f"Restored {folder.config_path}.")
            raise

    def _own_config(self) -> ModelsConfig:
        """Return models.config. Rewrite one that Digits did not write, if forced, or raise ArtifactError."""
        folder, config = self.folder, self.folder.read_config()
        if config.is_ours:
            return config
        if not self.force:
            raise ArtifactError(
                f"Digits did not write {folder.config_path}; change it yourself, or let --force rewrite it"
            )
        config = replace(config, is_ours=True)
        for name, base_path in config.base_paths.items():
            if published := folder.versions(name):
                config = config.with_versions(name, config.selected(name, published), base_path)
        folder.write_config(config)
        return config
