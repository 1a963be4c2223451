"""Readiness polling: wait until the model server has applied models.config."""

import time
from collections.abc import Callable

from digit_client import DigitError
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.connection import Connection, VersionStatus
from digit_serving.releases.config import ReleaseError

_CALL_TIMEOUT = 2.0
_POLL_SECONDS = 0.1


class ReadinessWaiter:
    """Polls a model server about a model. All waits share one timeout, in seconds from construction."""

    def __init__(self, server: Connection, name: str, timeout: float) -> None:
        self._server, self._name, self._timeout = server, name, timeout
        self._end = time.monotonic() + timeout

    def statuses(self) -> dict[int, VersionStatus]:
        """Return the status of each version that the server knows. Raises DigitError for a failed call."""
        found = self._server.versions(ModelRef(self._name), timeout=_CALL_TIMEOUT)
        return {status.version: status for status in found}

    def wait_until_loaded(self, version: int, stale: VersionStatus | None) -> None:
        """Wait until the version is available. Ignore the error of `stale`, the status of an earlier attempt.

        Raises ReleaseError if the version fails to load, or at the timeout.
        """

        def is_loaded() -> bool:
            status = self.statuses().get(version)
            if status and status.error and status != stale:
                raise ReleaseError(f"the model server can't load version {version}: {status.error}")
            return bool(status and status.is_available)

        self._wait(is_loaded, f"the model server did not load version {version} (see its log)")

    def wait_until_labelled(self, label: str, version: int) -> None:
        """Wait until the server resolves the label to the version. Raises ReleaseError at the timeout."""
        model = ModelRef(self._name, label=label)
        self._wait(
            lambda: self._server.resolve(model, timeout=_CALL_TIMEOUT) == version,
            f"the model server did not move label {label} to version {version}",
        )

    def _wait(self, is_done: Callable[[], bool], failure: str) -> None:
        reason = ""
        while time.monotonic() < self._end:
            try:
                if is_done():
                    return
                reason = ""
            except DigitError as error:
                # The server may be starting: poll until the timeout.
                reason = f": {error.message}"
            time.sleep(_POLL_SECONDS)
        raise ReleaseError(f"{failure} within {self._timeout:g} s{reason}")
