"""Watching the model server until it has done what models.config says."""

import time
from collections.abc import Callable

from digit_client import DigitError
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.model_server import ModelServer, VersionStatus
from digit_serving.releases.config import MODEL_NAME, ReleaseError

_CALL_SECONDS = 2.0
_PAUSE = 0.1


class Watch:
    """Whatever waits here raises ReleaseError when `seconds` have passed since this was made."""

    def __init__(self, server: ModelServer, seconds: float) -> None:
        self._server, self._seconds = server, seconds
        self._end = time.monotonic() + seconds

    def versions(self) -> dict[int, VersionStatus]:
        """What the server knows of each version. Raises DigitError where it doesn't answer."""
        found = self._server.versions(ModelRef(MODEL_NAME), timeout=_CALL_SECONDS)
        return {status.version: status for status in found}

    def until_available(self, version: int, before: VersionStatus | None) -> None:
        """Raises ReleaseError also where the version fails to load; `before` is what an earlier try left."""

        def is_available() -> bool:
            status = self.versions().get(version)
            if status and status.error and status != before:
                raise ReleaseError(f"the model server can't load version {version}: {status.error}")
            return bool(status and status.is_available)

        self._wait(is_available, f"the model server did not load version {version}, its log may say why,")

    def until_labelled(self, label: str, version: int) -> None:
        """The label is looked up as callers do it."""
        model = ModelRef(MODEL_NAME, label=label)
        self._wait(
            lambda: self._server.resolve(model, timeout=_CALL_SECONDS) == version,
            f"the model server did not make version {version} {label}",
        )

    def _wait(self, holds: Callable[[], bool], otherwise: str) -> None:
        reason = ""
        while time.monotonic() < self._end:
            try:
                if holds():
                    return
                reason = ""
            except DigitError as error:
                # It may be starting just now.
                reason = f": {error.message}"
            time.sleep(_PAUSE)
        raise ReleaseError(f"{otherwise} within {self._seconds:g} s{reason}")
