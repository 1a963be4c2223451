"""What happens around every request: a name for it, and at its end counts, a line in the log, a trace."""

import os
import re
import time
from typing import TYPE_CHECKING

from flask import Flask, Request, Response, g, request

from digit_serving.gateway import logs
from digit_serving.gateway.asgi import ARRIVED_AT
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.record import Record

if TYPE_CHECKING:
    from digit_serving.gateway.traces import Traces

SANE_ID = r"[A-Za-z0-9._:-]{1,128}"
"""The request ids that are taken from callers."""

_SANE = re.compile(SANE_ID)
# A caller may send any word as method.
_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
QUIET = {"/livez", "/readyz", "/metrics"}
"""The routes for whoever runs this."""


def register(app: Flask, metrics: Metrics, traces: "Traces | None") -> None:
    """Name, count, log and trace each request of the app; `g.record` is what is known of it.

    X-Request-ID is taken where it is sane, else made; it is in the answer, the log and the call to the model
    server. Health checks are neither counted, nor logged, nor traced.
    """

    def begin() -> None:
        g.record = record = _record(request)
        if traces and record.route not in QUIET:
            traces.begin(record, request)

    def end(response: Response) -> Response:
        record: Record = g.record
        record.ended = time.perf_counter()
        record.status = response.status_code
        response.headers.add("X-Request-ID", record.request_id)
        response.headers.add("X-Content-Type-Options", "nosniff")
        if record.route not in QUIET:
            metrics.count(record)
            logs.write(record)
            if traces:
                traces.end(record)
        return response

    app.before_request(begin)
    app.after_request(end)


def request_id(given: str) -> str:
    """The caller's where it is sane, else one made for the request."""
    return given if _SANE.fullmatch(given) else os.urandom(16).hex()


def _record(request: Request) -> Record:
    begun = time.perf_counter()
    environ = request.environ
    rule = request.url_rule
    method = environ["REQUEST_METHOD"]
    method = method if method in _METHODS else "other"
    name = request_id(environ.get("HTTP_X_REQUEST_ID", ""))
    return Record(name, rule.rule if rule else "unmatched", method, environ.get(ARRIVED_AT, begun), begun)
