"""Request: its context, the source of metrics, log line and spans, with one deadline for all of it.

Times are those of one clock, time.monotonic.
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

import orjson
from flask import Request, Response

from digit_core.errors import DeadlineExceededError
from digit_core.results import Prediction, Reading
from digit_core.tfserving.codec import ModelRef
from digit_serving.gateway.bridge import ARRIVED_AT
from digit_serving.gateway.schemas import REQUEST_ID_PATTERN

PROBE_ROUTES = {"/livez", "/readyz", "/metrics"}
"""Routes of probes and of the metrics scraper: always admitted; not counted, logged or traced."""

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)
# Unknown methods share the label value `other`: a caller may send any word, each a new time series.
_KNOWN_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_NO_MODEL = ModelRef("")

Asked: TypeAlias = Literal["named", "canary", "default", "pinned"]
"""Reason for which a version is asked: the request names it, its label is the canary's or the default one, or
it answered the request's first call."""


@dataclass(slots=True, eq=False)
class Call:
    """A call to the model server, which several requests may share. Times are by time.monotonic."""

    images: int
    requests: int
    started_at: float
    ended_at: float | None = None
    span: Any = None


@dataclass(slots=True, eq=False)
class Wait:
    """A request's wait in a batch queue, and the call that ended the wait: None after a timeout."""

    started_at: float
    call: Call | None = None
    is_leader: bool = False
    """True for the batch leader, so that a shared call is counted once."""


@dataclass(slots=True, eq=False)
class RequestContext:
    """One request; each step adds facts. Times (`…_at`) are by time.monotonic, durations in seconds."""

    request_id: str
    route: str
    """The URL rule that matched, or `unmatched`: paths would be an unlimited number of label values."""
    method: str
    """The HTTP method, or `other` for an unknown one."""
    arrived_at: float
    """Arrival of the last byte of the body."""
    dequeued_at: float
    """End of the wait in the admission queue."""
    deadline: float
    """End of the request's time: for reading pictures, and for all calls to the model server."""
    client: str = ""
    """Address of the caller, as the proxy says that DIGITS_TRUSTED_PROXIES trusts."""
    key: str = ""
    """Name of the caller's API key, "" if no keys are required."""
    may_label: bool = False
    """True if the caller's API key shows stored answers and labels them."""
    ended_at: float = 0.0
    status: int = 0
    problem_code: str | None = None
    """Code of the problem that was answered."""
    image_errors: list[str] = field(default_factory=list)
    """Codes of the errors of images, also of those in the places of results."""

    slice_began: float = 0.0
    """Start of the work since the latest yield to the event loop."""
    decode_started_at: float = 0.0
    """Start of decoding the first image."""
    decode_seconds: float = 0.0
    """Time spent on decoding, over all images."""
    normalise_seconds: float = 0.0
    """Time spent on preparing images as the model takes them, over all images."""
    find_started_at: float = 0.0
    """Start of the first search for digits on a page."""
    find_seconds: float = 0.0
    """Time spent on finding digits on pages, with the reader's calls, over all images."""

    requested: ModelRef = _NO_MODEL
    """Model of the settings that is asked, with the version or the label that the request names, if any."""
    asked: Asked = "default"
    target: ModelRef = _NO_MODEL
    """Version or label that is asked for the reason `asked`."""
    shadow: ModelRef | None = None
    """Version that is asked as well, unseen by the caller."""
    waits: list[Wait] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Failed calls: the reason for which the version was asked, or `reader`, and the error's code."""
    model_version: int | None = None
    """Version that answered the first call."""
    results: Sequence[Prediction] | Sequence[Reading] = ()
    """Results of the images."""
    span: Any = None
    """OpenTelemetry span, if tracing is on."""

    @classmethod
    def from_request(cls, request: Request, seconds: float) -> Self:
        """Create the context of a request that leaves the admission queue, with `seconds` from arrival on."""
        now = time.monotonic()
        environ = request.environ
        rule = request.url_rule
        method = environ["REQUEST_METHOD"]
        arrived_at = environ.get(ARRIVED_AT, now)
        return cls(
            request_id_or_new(environ.get("HTTP_X_REQUEST_ID", "")),
            rule.rule if rule else "unmatched",
            method if method in _KNOWN_METHODS else "other",
            arrived_at=arrived_at,
            dequeued_at=now,
            deadline=arrived_at + seconds,
            client=environ.get("REMOTE_ADDR", ""),
            slice_began=now,
        )

    def remaining(self) -> float:
        """Return the seconds left. Raise DeadlineExceededError if none are left."""
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise DeadlineExceededError("no time is left")
        return remaining

    @property
    def model(self) -> str:
        """Name of the model that is asked: the one that the request names, or the default."""
        return self.requested.name


def request_id_or_new(given: str) -> str:
    """Return the caller's request ID if it matches REQUEST_ID_PATTERN, otherwise a random one."""
    return given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def json_response(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a JSON document, which may have NumPy arrays."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, headers=headers, content_type="application/json")
