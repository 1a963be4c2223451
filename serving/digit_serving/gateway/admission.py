"""How many requests a process takes on at once. Those beyond are refused before they cost anything."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson

from digit_client.errors import OverloadedError
from digit_serving.gateway import errors, hooks
from digit_serving.gateway.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Admission:
    """A WSGI application that gives another one `most` requests at once.

    The rest is answered as an overloaded model server is, before Flask sees it, for a service that refuses
    as slowly as it answers does nothing else under a flood. Health checks always get through.
    """

    def __init__(self, app: "WSGIApplication", most: int, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        # Taken and put back in one step each, and nobody waits at it.
        self._free = [None] * most

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] in hooks.QUIET:
            return self._app(environ, start_response)
        try:
            place = self._free.pop()
        except IndexError:
            return self._refuse(environ, start_response)
        try:
            return self._app(environ, start_response)
        finally:
            self._free.append(place)

    def _refuse(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        self._metrics.count_overload()
        request_id = hooks.request_id(environ)
        status, code, detail = errors.told(OverloadedError)
        document = errors.document(status, code, detail, request_id)
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Retry-After", "1"),
            ("X-Request-ID", request_id),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response(f"{status} {document['title']}", headers)
        return [orjson.dumps(document)]
