"""How many requests a process takes on at once. Those beyond are refused before they cost anything."""

import orjson

from digit_client.errors import OverloadedError
from digit_serving.gateway import errors, hooks
from digit_serving.gateway.asgi import REFUSED, Application, Receive, Scope, Send
from digit_serving.gateway.metrics import Metrics


class Admission:
    """An ASGI application that gives another one `most` requests at once.

    The rest is answered as an overloaded model server is, before its body is read, for a service that refuses
    as slowly as it answers does nothing else under a flood. Health checks always get through.
    """

    def __init__(self, app: Application, most: int, metrics: Metrics) -> None:
        self._app = app
        self._most = most
        self._metrics = metrics
        self._taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in hooks.QUIET:
            await self._app(scope, receive, send)
        elif self._taken < self._most:
            self._taken += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._taken -= 1
        else:
            await self._refuse(scope, send)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        self._metrics.count_overload()
        scope[REFUSED] = True
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = hooks.request_id(given.decode("latin-1"))
        status, code, detail = errors.told(OverloadedError)
        body = orjson.dumps(errors.document(status, code, detail, request_id))
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"1"),
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
