"""Request: its context, its facts for observers, and its one deadline.

Times are those of one clock, time.monotonic.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import parse_qsl

import orjson
from flask import Request, Response

from digit_core.artifact.task_card import TaskCard
from digit_core.options import Options
from digit_core.results import Digit, Prediction, Reading
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import ServedVersion
from digit_serving.gateway.schemas import REQUEST_ID_PATTERN
from digit_serving.gateway.settings import Settings

PROBE_ROUTES = {"/livez", "/readyz", "/metrics"}
"""Routes of probes and of the metrics scraper: always admitted; not counted, logged or traced."""

_MAX_PROBABILITIES = 2**18
"""Most probabilities of a call: 256 images of 1,000 labels, whose answers take 10 ms to decode, and 8 MiB."""

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)
# Unknown methods share the label value `other`: a caller may send any word, each a new time series.
_KNOWN_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_NO_MODEL = ModelRef("")
_NO_OPTIONS = Options({}, ())


@dataclass(frozen=True, slots=True)
class Deadline:
    """Times of a request, by time.monotonic."""

    arrived_at: float
    """Arrival of the last byte of the body."""
    latest_start: float
    """End of the wait for admission and for the thread; the other half of the time is left for the calls."""
    end: float
    """End of the request's time: for reading pictures, and for all calls to the model server."""


class Deadlines:
    """Deadlines of requests: DIGITS_DEADLINE, or that of the model's table in DIGITS_MODELS_FILE."""

    def __init__(self, settings: Settings) -> None:
        self._default_model, self._seconds = settings.model_name, settings.deadline
        self._by_model = {name: model.deadline for name, model in settings.by_model.items()}

    def of_model(self, name: str, arrived_at: float) -> Deadline:
        """Return the deadline of a request for a model."""
        seconds = self._by_model.get(name, self._seconds)
        return Deadline(arrived_at, arrived_at + seconds / 2, arrived_at + seconds)

    def of_query(self, query: bytes, arrived_at: float) -> Deadline:
        """Return the deadline of a request for the model that its query names."""
        name = self._default_model
        if self._by_model and query:
            name = dict(parse_qsl(query.decode("latin-1"))).get("model", name)
        return self.of_model(name, arrived_at)


@dataclass(frozen=True, slots=True)
class Route:
    """Version that a request asks, and the reason. Its pictures are prepared by the version's card."""

    reason: str
    """`named` if the request names the version, `default`, `pinned` if the version answered the request's
    first call or has got the label since, otherwise the name of the feature that chose it."""
    served: ServedVersion
    chosen: ModelRef
    """Version or label that was chosen first; `served` is pinned to what answered for it."""

    @property
    def is_chosen(self) -> bool:
        """True if a feature chose the version."""
        return self.reason not in ("named", "default", "pinned")

    def pinned(self, served: ServedVersion) -> Self:
        """Return the route to the version that answers all further calls."""
        return replace(self, reason="pinned", served=served)


@dataclass(slots=True, eq=False)
class Call:
    """A call to the model server, which several requests may share. Times are by time.monotonic."""

    images: int
    started_at: float
    ended_at: float | None = None


@dataclass(slots=True, eq=False)
class Wait:
    """A wait in a batch queue, and the call that ended it: None after a timeout."""

    request_id: str
    deadline: float
    started_at: float
    trace: Mapping[str, str] = MappingProxyType({})
    """Headers of the request's W3C trace context."""
    call: Call | None = None
    is_leader: bool = False
    """True for the batch leader, so that a shared call is counted once."""


@dataclass(slots=True, eq=False)
class RequestContext:
    """One request; each step adds facts. Times (`…_at`) are by time.monotonic, durations in seconds."""

    request_id: str
    rule: str
    """The URL rule that matched, or `unmatched`: paths would be an unlimited number of label values."""
    method: str
    """The HTTP method, or `other` for an unknown one."""
    arrived_at: float
    """Arrival of the last byte of the body."""
    dequeued_at: float
    """End of the wait in the admission queue."""
    latest_start: float
    """End of the wait for the thread that reads large pictures."""
    deadline: float
    """End of the request's time: for reading pictures, and for all calls to the model server."""
    client: str = ""
    """Address of the caller; behind DIGITS_TRUSTED_PROXIES, the address that the proxies name."""
    key: str = ""
    """Name of the caller's API key, "" if no keys are required."""
    has_unknown_key: bool = False
    """True if the caller sent a key that the service does not have."""
    may_label: bool = False
    """True if the caller's API key may show stored answers and label them."""
    ended_at: float = 0.0
    status: int = 0
    problem_code: str | None = None
    """Code of the problem that was answered."""
    image_errors: list[str] = field(default_factory=list)
    """Codes of the errors of images, also of those in the places of results."""

    decode_started_at: float = 0.0
    """Start of decoding the first image."""
    stages: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of each stage, over all images: `decode`; `normalise`, the preparation of the model's inputs;
    and `find`, the search for digits on pages, with the reader's calls."""

    requested: ModelRef = _NO_MODEL
    """Model that is asked, with the version or the label that the request names, if any."""
    has_model: bool = False
    """True once the service is known to have this model: callers may name any."""
    waits: list[Wait] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Failed calls: the reason for which the version was asked, or `reader`, and the error's code."""
    model_version: int | None = None
    """Version that answered the first call."""
    results: Sequence[Prediction | Reading] = ()
    """Results of the images."""
    options: Options = field(default_factory=lambda: _NO_OPTIONS)
    """Options of a call that answers pictures, once they are checked."""
    trace: Mapping[str, str] = MappingProxyType({})
    """Headers of the W3C trace context for calls to the model server."""

    @classmethod
    def from_request(cls, request: Request, deadline: Deadline, now: float) -> Self:
        """Create the context of a request that leaves the admission queue now."""
        environ = request.environ
        rule = request.url_rule
        method = environ["REQUEST_METHOD"]
        return cls(
            request_id_or_new(environ.get("HTTP_X_REQUEST_ID", "")),
            rule.rule if rule else "unmatched",
            method if method in _KNOWN_METHODS else "other",
            arrived_at=deadline.arrived_at,
            dequeued_at=now,
            latest_start=deadline.latest_start,
            deadline=deadline.end,
            client=environ.get("REMOTE_ADDR", ""),
        )

    @property
    def model(self) -> str:
        """Name of the model that is asked: the one that the request names, or the default."""
        return self.requested.name


class Facts:
    """Facts of a request that has ended, as metrics, log line and span need them."""

    def __init__(self, context: RequestContext) -> None:
        self.context = context
        self.model = context.requested.name if context.has_model else ""
        """Name of the model that is asked, "" unless the service has it."""
        self.seconds = context.ended_at - context.arrived_at
        self.model_server_seconds, queue_seconds = 0.0, context.dequeued_at - context.arrived_at
        for wait in context.waits:
            call = wait.call
            queue_seconds += (call.started_at if call else context.ended_at) - wait.started_at
            if call:
                # A call in flight counts up to the end of the request.
                self.model_server_seconds += (call.ended_at or context.ended_at) - call.started_at
        self.stages: dict[str, float] = {**context.stages}
        """Seconds of each stage; `queue` is the time in the admission queue and in batch queues."""
        if context.waits:
            self.stages["queue"] = queue_seconds
        results = [result.refusal or "answered" for result in context.results] + context.image_errors
        self.images = Counter(results)
        """Number of images by their result: `answered`, a refusal, or the code of an error."""
        self.readings = [result for result in context.results if isinstance(result, Reading)]
        self.answers = self._list_answers()
        """Predictions that are not refused, or the digits of all readings."""
        self.outcome = self._describe_outcome()
        """Facts that log line and span share."""

    def _list_answers(self) -> Sequence[Prediction | Digit]:
        results = self.context.results
        predictions = [each for each in results if isinstance(each, Prediction) and not each.refusal]
        return predictions or [digit for reading in self.readings for digit in reading.digits]

    def _describe_outcome(self) -> Mapping[str, Any]:
        outcome: dict[str, Any] = {}
        if self.context.model_version is not None:
            outcome |= {"model": self.model, "version": self.context.model_version}
        if self.context.results:
            outcome["images"] = len(self.context.results)
        outcome |= {result: count for result, count in self.images.items() if result != "answered"}
        if self.readings:
            # The count only: a number, such as a card's, may be confidential.
            outcome["digits"] = len(self.answers)
        return outcome


def request_id_or_new(given: str) -> str:
    """Return the caller's request ID if it matches REQUEST_ID_PATTERN, otherwise a random one."""
    return given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def json_response(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a JSON document, which may have NumPy arrays."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, headers=headers, content_type="application/json")


def max_answers(card: TaskCard) -> int:
    """Return the most images whose answers a call, or a request, may ask for."""
    return max(1, _MAX_PROBABILITIES // len(card.labels))
