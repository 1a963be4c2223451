"""Flask under an ASGI server: each request in a greenlet of its own, all of them in one thread."""

import io
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from digit_serving import greenlets
from digit_serving.gateway.backlog import Backlog

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

WAITED = "digits.waited"
"""In the scope and the environment of a request that had to wait before it was read: how many seconds."""

_Header = tuple[bytes, bytes]
_Answer = tuple[int, list[_Header], bytes]


class Asgi:
    """An ASGI application of a WSGI one, which gets each request when it is there as a whole.

    Of a body that is larger than `max_body` it gets so little more that it can tell. What waits in it is to
    wait as digit_serving.greenlets has it.
    """

    def __init__(self, app: "WSGIApplication", max_body: int, backlog: Backlog) -> None:
        self._app = app
        self._max_body = max_body
        self._backlog = backlog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        environ = _environ(scope)
        body = await self._body(environ, receive)
        if body is None:
            return
        environ["wsgi.input"] = io.BytesIO(body)
        self._backlog.begin()
        try:
            status, headers, content = await greenlets.run(self._answer, environ)
        finally:
            self._backlog.end()
        if int(environ.get("CONTENT_LENGTH", 0)) > self._max_body:
            # The rest of it is nobody's next request.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _body(self, environ: "WSGIEnvironment", receive: Receive) -> bytes | None:
        """None where the client has gone away."""
        if int(environ.get("CONTENT_LENGTH", 0)) > self._max_body:
            return b""
        parts, size, more = [], 0, True
        while more and size <= self._max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message["body"])
            size += len(parts[-1])
            more = message["more_body"]
        if size:
            environ["CONTENT_LENGTH"] = str(size)
        return b"".join(parts)

    def _answer(self, environ: "WSGIEnvironment") -> _Answer:
        begun: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            begun.append((status, headers))

        parts: Iterable[bytes] = self._app(environ, start_response)
        try:
            content = b"".join(parts)
        finally:
            if close := getattr(parts, "close", None):
                close()
        status, fields = begun[-1]
        # The server tells the date of every answer.
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in fields
            if name != "Date"
        ]
        return int(status[:3]), headers, content


class Ending:
    """An ASGI application, and what is to be done at the server's end, if anything is."""

    def __init__(self, app: Application, end: Callable[[], None] | None) -> None:
        self._app = app
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._end:
            self._end()
        await send({"type": "lifespan.shutdown.complete"})


def _environ(scope: Scope) -> "WSGIEnvironment":
    (host, port), (client, _) = scope["server"] or ("", None), scope["client"] or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or ""),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if WAITED in scope:
        environ[WAITED] = scope[WAITED]
    for field, content in scope["headers"]:
        _add(environ, field.decode("latin-1"), content.decode("latin-1"))
    return environ


def _add(environ: dict[str, Any], field: str, content: str) -> None:
    # With an underscore it could pass for another one, and that a body came in chunks is past.
    if "_" in field or field == "transfer-encoding":
        return
    name = field.upper().replace("-", "_")
    if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        name = f"HTTP_{name}"
    environ[name] = f"{environ[name]},{content}" if name in environ else content
