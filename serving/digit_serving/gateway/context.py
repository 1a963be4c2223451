"""What is known of a request at its end: its counts, its line in the log and its spans are made from it."""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Request

from digit_client import Prediction
from digit_serving.gateway.asgi import ARRIVED_AT


@dataclass(slots=True, eq=False)
class Call:
    """A call to the model server, which several requests may share. Times are time.perf_counter's."""

    images: int
    requests: int
    started: float
    ended: float | None = None
    span: Any = None


@dataclass(slots=True, eq=False)
class Wait:
    """A request's wait for its call, and that call; none where its deadline came first."""

    started: float
    call: Call | None = None
    leads: bool = False
    """Of those who share the call it is counted, as theirs all, once: with the first."""


@dataclass(slots=True, eq=False)
class RequestContext:
    """One request. Each step writes here what it did; times are time.perf_counter's, durations in seconds."""

    request_id: str
    route: str
    """The rule that matched, or `unmatched`, so that paths don't multiply what is counted."""
    method: str
    """A known one, or `other`."""
    started: float
    """When it came."""
    begun: float
    """When it was its turn."""
    key: str | None = None
    """Name of the caller's key, where keys are asked for."""
    ended: float = 0.0
    status: int = 0
    problem: str | None = None
    """Code of the error that was answered."""
    refused: str | None = None
    """The same, where an image was at fault."""

    read_from: float = 0.0
    """When the first image was looked at."""
    decode: float = 0.0
    normalise: float = 0.0
    """Of all images together, which are decoded and normalised in turn."""

    waits: list[Wait] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Who was asked in vain, and the code of the error."""
    predictions: Sequence[Prediction] = ()
    span: Any = None
    """OpenTelemetry's, where traces are on."""

    @property
    def duration(self) -> float:
        """From the request to its answer."""
        return self.ended - self.started

    @property
    def queue(self) -> float:
        """How long it waited for its turn, and for its calls to begin."""
        return (self.begun - self.started) + sum(
            (wait.call.started if wait.call else self.ended) - wait.started for wait in self.waits
        )

    @property
    def model_server(self) -> float:
        """How long its calls took, or were waited for."""
        calls = [wait.call for wait in self.waits if wait.call]
        return sum((call.ended or self.ended) - call.started for call in calls)

    @property
    def trace_id(self) -> str | None:
        """The trace's, where there is one."""
        return format(self.span.get_span_context().trace_id, "032x") if self.span else None


REQUEST_ID_PATTERN = r"[A-Za-z0-9._:-]{1,128}"
"""The request ids that are taken from callers."""

_SANE = re.compile(REQUEST_ID_PATTERN)
# A caller may send any word as method.
_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
PROBE_ROUTES = {"/livez", "/readyz", "/metrics"}
"""The routes for whoever runs this."""


def request_id(given: str) -> str:
    """The caller's where it is sane, else one made for the request."""
    return given if _SANE.fullmatch(given) else os.urandom(16).hex()


def begin(request: Request) -> RequestContext:
    begun = time.perf_counter()
    environ = request.environ
    rule = request.url_rule
    method = environ["REQUEST_METHOD"]
    method = method if method in _METHODS else "other"
    name = request_id(environ.get("HTTP_X_REQUEST_ID", ""))
    return RequestContext(
        name, rule.rule if rule else "unmatched", method, environ.get(ARRIVED_AT, begun), begun
    )
