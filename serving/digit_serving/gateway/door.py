"""Door of features: what a feature may bring to the gateway, all of it optional.

    pages, operations ─ __init__ ─ routes, observer, choice of a version, warnings, members of a model ─ close

`features.FEATURES` names the features. Services, routes, pages, the OpenAPI document and probes loop over
them, and know none by name.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

from flask import Blueprint

from digit_core.artifact.task_card import TaskCard
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.features import FEATURES
from digit_serving.gateway.observers import Observer
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import Chooser, Upstream

_log = logging.getLogger(__name__)


class Feature(Chooser):
    """A feature in a worker that the settings turn on; a subclass overrides what it brings."""

    links: ClassVar[Mapping[str, str]] = {}
    """Endpoints in the JSON index at /, by name."""
    schemas: ClassVar[Mapping[str, Any]] = {}
    """Types that its operations refer to, by name."""
    observer: Observer | None = None
    """Observer of all requests."""

    def __init__(self, settings: Settings, metrics: Metrics, work: Work) -> None:
        """Create the feature, in the event loop that serves; it may begin work in the background."""

    @classmethod
    def pages(cls, settings: Settings) -> Mapping[str, Path]:
        """Return the HTML file of each path; /static also serves the files beside it."""
        return {}

    @classmethod
    def operations(cls, settings: Settings) -> dict[str, Any]:
        """Return the OpenAPI operation of each path."""
        return {}

    def routes(self, api: Blueprint, upstream: Upstream) -> None:
        """Add routes below /v1."""

    def model_members(self, name: str, task: TaskCard | None) -> Mapping[str, Any]:
        """Return members of the answer of /v1/models to a model."""
        return {}

    def warnings(self) -> list[str]:
        """Return sentences for /readyz on what does not work; the gateway is ready all the same."""
        return []

    async def close(self) -> None:
        """Finish the work in the background, after all requests."""


@contextmanager
def contained(feature: Feature) -> Iterator[None]:
    """Log an error of a feature; the gateway goes on without it."""
    try:
        yield
    except Exception:
        _log.exception("the feature %s failed", type(feature).__name__)


def features(settings: Settings) -> list[type[Feature]]:
    """Return the classes of the features that the settings turn on."""
    return [resolve_name(path) for setting, path in FEATURES.items() if getattr(settings, setting)]


def in_share(share: float, request_id: str, purpose: bytes = b"") -> bool:
    """True for a share, 0..1, of the request IDs. Their hash decides, so an ID always gets the same answer.

    The shares of different purposes, of at most 16 bytes, are independent of each other.
    """
    if not share:
        return False
    number = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8, person=purpose).digest())
    return number < share * 2**64
