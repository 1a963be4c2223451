"""Services that serve the page in addition to `digits up`."""

from dataclasses import dataclass
from subprocess import Popen


@dataclass(frozen=True)
class CanaryService:
    """A gateway in front of a model server with versions 1 and 2, labelled stable and canary."""

    url: str
    model_server: Popen[bytes]


@dataclass(frozen=True)
class ProtectedService:
    """A gateway that requires an API key, and a valid key."""

    url: str
    key: str
