"""Traffic: the share of the requests that each version label answers, as models.traffic.json says."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from digit_core.artifact import traffic
from digit_core.artifact.traffic import Traffic
from digit_core.artifact.versions import ArtifactError

_log = logging.getLogger(__name__)


class TrafficFile:
    """Shares in a file, which is read again every second; a missing file has none.

    `clock` returns seconds, like time.monotonic.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._read_until, self._text = -math.inf, ""
        self._traffic: Traffic = {}
        self.error = ""
        """Sentence on why the file is not followed."""

    def read(self) -> Traffic:
        """Return the share of each version label, by model."""
        if self._path and (now := self._clock()) >= self._read_until:
            self._read(self._path)
            self._read_until = now + traffic.READ_SECONDS
        return self._traffic

    def _read(self, path: Path) -> None:
        """Read the file. If it is damaged or can't be read, keep the shares and log the error once."""
        try:
            text = path.read_text()
        except FileNotFoundError:
            text = "{}"
        except (OSError, UnicodeDecodeError) as error:
            text = str(error)
        if text == self._text:
            return
        self._text, self.error = text, ""
        try:
            self._traffic = traffic.parse(text)
        except ArtifactError as error:
            self.error = (
                f"The shares of requests stay as they were, and a gateway that starts has none: {error}."
            )
            _log.warning("%s %s: %.200s", self.error, path, text)
