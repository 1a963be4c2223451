"""Promotion, rollback and removal: changes of models.config that a running service has to follow."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from digit_core.artifact import addresses, traffic
from digit_core.artifact.models_config import STABLE, ModelsConfig
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import READER_NAME
from digit_core.artifact.versions import ArtifactError, Version, remove_leftovers
from digit_core.errors import AuthenticationError, DigitError, ModelNotFoundError
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import Connection

if TYPE_CHECKING:
    from digit_client import Client

_CALL_TIMEOUT = 2.0
_POLL_SECONDS = 0.1
_ANSWERS = 8
"""Consecutive right answers after which a change is done: enough to reach every replica of a model server."""


def statuses(server: Connection, name: str) -> dict[int, VersionStatus]:
    """Return the status of each version of a model that the server knows. Raise DigitError if it fails."""
    try:
        found = server.versions(ModelRef(name), timeout=_CALL_TIMEOUT)
    except ModelNotFoundError:
        return {}
    return {status.version: status for status in found}


@dataclass(frozen=True, slots=True)
class Releases:
    """Versions of the model `name` in a models folder, and their services.

    A change waits until the services follow it, each step at most `timeout` seconds. If they don't follow or
    refuse access, or if a step fails, models.config is restored. `report` gets a sentence for each step.
    Methods raise ArtifactError, OSError, or DigitError if the model server does not answer.
    """

    folder: ModelsFolder
    name: str
    report: Callable[[str], None]
    server: Connection | None = None
    """Connection to the model server, or None if no server runs."""
    gateway: "Client | None" = None
    timeout: float = 60.0
    server_name: str = "the model server"
    """Name of the model server in messages, with its address."""
    force: bool = False
    """True to rewrite a models.config that Digits did not write."""

    def promote(self, number: int, label: str, share: float | None = None) -> None:
        """Put the label on a version, which is verified and entered first if models.config lacks it.

        `share`, 0..1, is the share of the requests without version and label that the label answers from now
        on; None keeps the present share.
        """
        if share is not None and label == STABLE:
            raise ArtifactError(f"--share needs another --version-label: {STABLE} answers the rest")
        with self.folder.lock(), self._restoring() as config:
            config = self._load(config, self.folder.version(self.name, number))
            self._move(config, label, number)
            if share is not None:
                self._share(label, share)
        self.report(f"Version {number} is {label}.")
        if share is not None:
            self.report(f"It answers {100 * share:g} % of the requests without version and label.")

    def roll_back(self, label: str) -> None:
        """Put the label on the version that had it before."""
        with self.folder.lock(), self._restoring() as config:
            number = self.folder.previous(self.name, label, config.labels(self.name).get(label))
            if number is None:
                remedy = f"`digits models promote N --model {self.name} --version-label {label}`"
                raise ArtifactError(f"label {label} has no known earlier version; promote one: {remedy}")
            config = self._load(config, self.folder.version(self.name, number))
            self._move(config, label, number)
        self.report(f"Version {number} is {label}.")
        for other, share in self.folder.read_traffic().get(self.name, {}).items():
            left = config.labels(self.name).get(other, number)
            if label == STABLE and left != number:
                self.report(
                    f"Version {left} still answers {100 * share:g} % of the requests without version and "
                    f"label, as {other}; end that by `digits models promote {left} --model {self.name} "
                    f"--version-label {other} --share 0`"
                )

    def prune(self, keep: int) -> None:
        """Remove the versions except the newest `keep` and those that a label or a rollback needs.

        The model server unloads a version before its files are removed.
        """
        with self.folder.lock():
            found = self.folder.versions(self.name)
            with self._restoring() as config:
                entered = config.selected(self.name, found)
                # A damaged version, or one that is being copied, must not push a good one out.
                good = (number for number in found if number in entered or not found[number].defect())
                oldest = min(islice(good, keep), default=0)
                needed = self.folder.needed(self.name, config.labels(self.name))
                removed = {number for number in found if number < oldest} - needed
                if listed := config.listed(self.name) & removed:
                    kept, base_path = config.listed(self.name) - listed, config.base_paths[self.name]
                    self.folder.write_config(config.with_versions(self.name, kept, base_path))
                if removed:
                    self._wait_until_unloaded(removed, "the versions to be removed")
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
        with folder.lock():
            for default, remedy in self._defaults():
                if default == self.name:
                    reason = f"{self.name} answers callers who name no model"
                    raise ArtifactError(f"{reason}; let another one do so first: {remedy}")
            with self._restoring() as config:
                if self.name in config.base_paths:
                    folder.write_config(config.without(self.name))
                self._wait_until_unloaded(folder.versions(self.name), self.name)
            folder.remove(self.name)
        self.report(f"Removed {self.name}. The folder now has {', '.join(others) or 'no model'}.")

    def _defaults(self) -> Iterator[tuple[str | None, str]]:
        """Yield each model that answers callers who name none, and the way to let another one do so."""
        yield self.folder.default(), "`digits models default NAME`"
        variable = "another DIGITS_MODEL_NAME"
        yield os.environ.get("DIGITS_MODEL_NAME"), f"set {variable}"
        if up := addresses.read(self.folder.root):
            yield up.default_model, f"start `digits up` with {variable}"
        if gateway := self.gateway:
            try:
                with type(gateway)(gateway.url) as client:
                    yield client.models().name, f"start the gateway at {gateway.url} with {variable}"
            except DigitError as error:
                raise ArtifactError(
                    f"the gateway at {gateway.url} does not name its default: {error}"
                ) from error

    def _load(self, config: ModelsConfig, version: Version) -> ModelsConfig:
        """Enter the version, wait until it is loaded, and return the configuration with it.

        Versions that are loaded stay loaded.
        """
        server, number, owner = self.server, version.number, self.server_name
        if not server:
            return self.folder.enter(config, version)
        # The status may hold the error of an earlier attempt to load the version. If the file lists the
        # version, no new attempt begins, and the error counts.
        is_listed = number in config.listed(self.name)
        stale = statuses(server, self.name).get(number)
        config = self.folder.enter(config, version)

        def is_loaded() -> bool:
            status = statuses(server, self.name).get(number)
            if status and status.error and (is_listed or status != stale):
                raise ArtifactError(f"{owner} can't load version {number}: {status.error}")
            return bool(status and status.is_available)

        self.report(f"Waiting for {owner} to load version {number} ...")
        self._wait(is_loaded, f"{owner} did not load version {number} (see its log)")
        return config

    def _move(self, config: ModelsConfig, label: str, number: int) -> None:
        """Move the label to a loaded version, and wait until the services answer with it.

        The gateway answers with the version before the label moves: one that refuses must not move it.
        """
        # A gateway answers no caller with the reader.
        server, gateway = self.server, None if self.name == READER_NAME else self.gateway
        config = config.with_label(self.name, label, number)
        if not server:
            self.folder.write_config(config)
            return
        if gateway:
            task = server.served(ModelRef(self.name, number), timeout=self.timeout).card
            blank = np.zeros(task.shape, np.uint8)
            self._wait(
                lambda: gateway.predict(blank, version=number).model_version == number,
                f"the gateway at {gateway.url} did not answer with version {number}",
            )
        self.folder.write_config(config)
        self.report(f"Waiting for the service to answer label {label} with version {number} ...")
        model = ModelRef(self.name, version_label=label)
        self._wait(
            lambda: server.resolve(model, timeout=_CALL_TIMEOUT) == number,
            f"{self.server_name} did not move label {label} to version {number}",
        )
        if gateway:
            self._wait(
                lambda: gateway.predict(blank, label=label).model_version == number,
                f"the gateway at {gateway.url} did not answer label {label} with version {number}",
            )

    def _share(self, label: str, share: float) -> None:
        """Set the label's share, and wait until gateways have read it; restore the shares if one does not."""
        folder, gateway, old = self.folder, self.gateway, self.folder.read_traffic()
        folder.write_traffic(traffic.with_share(old, self.name, label, share))
        try:
            if self.server:
                # Each worker of a gateway reads the file for itself, and a connection reaches only one.
                time.sleep(traffic.READ_SECONDS)
            if gateway:
                self._wait(
                    lambda: gateway.models().traffic.get(label, 0) == share,
                    f"the gateway at {gateway.url} does not read {folder.traffic_path}",
                )
        except BaseException:
            folder.write_traffic(old)
            raise

    def _wait_until_unloaded(self, versions: Collection[int], words: str) -> None:
        server = self.server
        if not server:
            return
        self.report(f"Waiting for {self.server_name} to unload {words} ...")

        def is_unloaded() -> bool:
            found = statuses(server, self.name)
            return all(status.state == "END" for number, status in found.items() if number in versions)

        listed = ", ".join(map(str, sorted(versions)))
        self._wait(is_unloaded, f"{self.server_name} did not unload version {listed} (see its log)")

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
        """Return models.config. If Digits did not write it, rewrite it if forced, or raise ArtifactError."""
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
