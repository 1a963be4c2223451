"""Services that serve the page in addition to `digits up`."""

from dataclasses import dataclass
from subprocess import Popen


@dataclass(frozen=True)
class CanaryService:
    """A gateway in front of a model server with the versions 1, stable, 2, canary, and 3, a candidate."""

    url: str
    model_server: Popen[bytes]


@dataclass(frozen=True)
class ProtectedService:
    """A gateway that requires an API key, and a valid key."""

    url: str
    key: str
