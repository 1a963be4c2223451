"""Running service of a model: its model server, and the gateway in front of it if one is named."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from digit_client import Client, DigitError, ModelNotFoundError
from digit_client.artifact.versions import ArtifactError
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.connection import Connection, VersionStatus

_CALL_TIMEOUT = 2.0
_POLL_SECONDS = 0.1
_ANSWERS = 8
"""Consecutive right answers that count: enough to reach every replica of a model server or gateway."""


@dataclass(frozen=True, slots=True)
class Service:
    """Service of the model `name`. Each wait raises ArtifactError after `timeout` seconds."""

    name: str
    server: Connection
    gateway: Client | None
    timeout: float

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
                raise ArtifactError(f"the model server can't load version {version}: {status.error}")
            return bool(status and status.is_available)

        self._wait(is_loaded, f"the model server did not load version {version} (see its log)")

    def wait_until_unloaded(self, versions: Collection[int]) -> None:
        """Wait until none of the versions is loaded."""

        def is_unloaded() -> bool:
            return all(status.state == "END" for n, status in self.statuses().items() if n in versions)

        listed = ", ".join(map(str, sorted(versions)))
        self._wait(is_unloaded, f"the model server did not unload version {listed} (see its log)")

    def wait_until_labelled(self, label: str, version: int) -> None:
        """Wait until the model server resolves the label to the version, and the gateway answers with it."""
        model = ModelRef(self.name, label=label)
        self._wait(
            lambda: self.server.resolve(model, timeout=_CALL_TIMEOUT) == version,
            f"the model server did not move label {label} to version {version}",
        )
        if gateway := self.gateway:
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
            except DigitError as error:
                # A server may be starting: poll until the timeout.
                answers, reason = 0, f": {error}"
            if answers == _ANSWERS:
                return
            if not answers:
                time.sleep(_POLL_SECONDS)
        raise ArtifactError(f"{failure} within {self.timeout:g} s{reason}")
