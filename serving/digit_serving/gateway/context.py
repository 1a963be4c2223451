"""Request context: facts about one request, the source of its metrics, log line and spans."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from flask import Request

from digit_core.results import Digit, Prediction, Reading
from digit_core.tfserving.codec import ModelRef
from digit_serving.gateway.asgi import ARRIVED_AT

REQUEST_ID_PATTERN = r"[A-Za-z0-9._:-]{1,128}"
"""Request IDs that are accepted from callers."""
PROBE_ROUTES = {"/livez", "/readyz", "/metrics"}
"""Routes of probes and of the metrics scraper: always admitted; not counted, logged or traced."""

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)
# Unknown methods share the label value `other`: a caller may send any word, each a new time series.
_KNOWN_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_NO_MODEL = ModelRef("")


@dataclass(slots=True, eq=False)
class Call:
    """A call to the model server, which several requests may share. Times are by time.perf_counter."""

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
    """One request; each step adds facts. Times (`…_at`) are by time.perf_counter, durations in seconds."""

    request_id: str
    route: str
    """The URL rule that matched, or `unmatched`: paths would be an unlimited number of label values."""
    method: str
    """The HTTP method, or `other` for an unknown one."""
    arrived_at: float
    """Arrival of the last byte of the body."""
    dequeued_at: float
    """End of the wait in the admission queue."""
    client: str = ""
    """Address of the caller, as the proxy says that DIGITS_TRUSTED_PROXIES trusts."""
    key: str | None = None
    """Name of the caller's API key, if keys are required."""
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
    read_started_at: float = 0.0
    """Start of reading the first image."""
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
    deadline: float | None = None
    """End of the time for calls to the model server, set before the first one."""
    waits: list[Wait] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Failed calls: the route (`named`, `canary`, `default`, `pinned`) and the error's code."""
    model_version: int | None = None
    """Version that answered the first call."""
    predictions: Sequence[Prediction] = ()
    readings: Sequence[Reading] = ()
    span: Any = None
    """OpenTelemetry span, if tracing is on."""

    @classmethod
    def from_request(cls, request: Request) -> Self:
        """Create the context of a request that has left the admission queue."""
        now = time.perf_counter()
        environ = request.environ
        rule = request.url_rule
        method = environ["REQUEST_METHOD"]
        return cls(
            request_id_or_new(environ.get("HTTP_X_REQUEST_ID", "")),
            rule.rule if rule else "unmatched",
            method if method in _KNOWN_METHODS else "other",
            arrived_at=environ.get(ARRIVED_AT, now),
            dequeued_at=now,
            client=environ.get("REMOTE_ADDR", ""),
            slice_began=now,
        )

    @property
    def model(self) -> str:
        """Name of the model that is asked: the one that the request names, or the default."""
        return self.requested.name

    @property
    def caller(self) -> str:
        """Owner of the answer: the name of the API key, "" if no keys are required."""
        return self.key or ""

    @property
    def images(self) -> int:
        """Number of images that have a result."""
        return len(self.predictions) + len(self.readings)

    @property
    def digits(self) -> list[Digit]:
        """Digits of all readings."""
        return [digit for reading in self.readings for digit in reading.digits]

    @property
    def answers(self) -> list[Prediction | Digit]:
        """Predictions that are no refusal, and digits of all readings."""
        accepted = [prediction for prediction in self.predictions if not prediction.refusal]
        return [*accepted, *self.digits] if self.readings else accepted  # type: ignore[return-value]

    @property
    def image_results(self) -> Mapping[str, int]:
        """Numbers of images, by their result: `answered`, a refusal, or the code of an error."""
        counts: dict[str, int] = {}
        for results in (self.predictions, self.readings):
            for result in results:
                name = result.refusal or "answered"
                counts[name] = counts.get(name, 0) + 1
        for code in self.image_errors:
            counts[code] = counts.get(code, 0) + 1
        return counts

    @property
    def duration(self) -> float:
        """Seconds from the request's arrival to its answer."""
        return self.ended_at - self.arrived_at

    @property
    def queue_seconds(self) -> float:
        """Time in the admission queue and in batch queues."""
        return (self.dequeued_at - self.arrived_at) + sum(
            (wait.call.started_at if wait.call else self.ended_at) - wait.started_at for wait in self.waits
        )

    @property
    def model_server_seconds(self) -> float:
        """Duration of the calls; a call in flight counts up to the request's end."""
        calls = [wait.call for wait in self.waits if wait.call]
        return sum((call.ended_at or self.ended_at) - call.started_at for call in calls)

    @property
    def trace_id(self) -> str | None:
        """The trace's ID in hexadecimal, if tracing is on."""
        return format(self.span.get_span_context().trace_id, "032x") if self.span else None


def request_id_or_new(given: str) -> str:
    """Return the caller's request ID if it matches REQUEST_ID_PATTERN, otherwise a random one."""
    return given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
