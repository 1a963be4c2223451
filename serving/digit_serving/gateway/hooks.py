"""What happens around every request: a name for it, a count, a line in the log."""

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from digit_serving.gateway.metrics import Metrics

_log = logging.getLogger(__name__)
SANE_ID = r"[A-Za-z0-9._:-]{1,128}"
"""The request ids that are taken from callers."""

_SANE = re.compile(SANE_ID)
_QUIET = {"/livez", "/readyz", "/metrics"}


def register(app: Flask, metrics: Metrics) -> None:
    """Name, count and log each request of the app.

    X-Request-ID is taken where it is sane, else made; it is in the answer, the log and the call to the model
    server. Health checks are neither counted nor logged.
    """

    def end(response: Response) -> Response:
        seconds = time.perf_counter() - g.started
        response.headers["X-Request-ID"] = g.request_id
        route = request.url_rule.rule if request.url_rule else "unmatched"
        if route not in _QUIET:
            metrics.count_request(route, request.method, response.status_code, seconds)
            milliseconds = seconds * 1000
            _log.info(
                "%s %s %s %s %.1f ms",
                g.request_id,
                request.method,
                route,
                response.status_code,
                milliseconds,
            )
        return response

    app.before_request(_begin)
    app.after_request(end)


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _SANE.fullmatch(given) else uuid.uuid4().hex
    g.started = time.perf_counter()
