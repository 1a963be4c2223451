"""WSGI-to-ASGI adapter over a greenlet bridge: Flask, which is synchronous, shares one thread with asyncio.

The bridge works as in SQLAlchemy's asyncio extension: `run` calls a function in a greenlet of its own.
Anywhere in that call, `await_` hands a coroutine to the event loop and suspends this greenlet alone.
"""

import io
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes

from flask import Flask, Request
from greenlet import GreenletExit, getcurrent, greenlet
from werkzeug.routing import MapAdapter

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

DEADLINE = "digits.deadline"
"""Key of the request's Deadline in scope and environ."""
TRUNCATED = "digits.truncated"
"""Key in scope: true if a part of the body has not been read."""

_Result = TypeVar("_Result")
_Response = tuple[int, list[tuple[bytes, bytes]], bytes]


async def run(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call the function in a greenlet and await on its behalf. Return its result or raise its error."""
    idle: list[_BridgeGreenlet] = vars(_pool).setdefault("idle", [])
    bridge = idle.pop() if idle else _BridgeGreenlet(_serve)
    call = _Call(function, arguments)
    try:
        step = bridge.switch(call)
        while step is not call:
            try:
                awaited = await step
            except BaseException:
                step = bridge.throw(*sys.exc_info())
            else:
                step = bridge.switch(awaited)
        idle.append(bridge)
        if call.error:
            raise call.error
        return call.result  # type: ignore[no-any-return]
    finally:
        # The idle greenlet refers to the call, which would keep a request's body alive.
        call.function = call.arguments = call.result = call.error = None


def await_(awaitable: Awaitable[_Result]) -> _Result:
    """Await in synchronous code that `run` calls. Raise RuntimeError in other code."""
    current = getcurrent()
    if not isinstance(current, _BridgeGreenlet) or current.parent is None:
        raise RuntimeError("await_ works only in functions that bridge.run calls")
    return current.parent.switch(awaitable)  # type: ignore[no-any-return]


class BridgedFlask(Flask):
    """Flask without two services that cost each request 30 µs: coroutines as views, and routing by host."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: no view is a coroutine."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return an adapter that matches path and method alone."""
        if request is None:
            return None
        return self.url_map.bind("", path_info=request.path, default_method=request.method)


class WsgiAdapter:
    """Serves a WSGI application through `run`.

    The body must arrive as one message, as Admission sends it. If it is truncated, the adapter closes the
    connection, since the unread rest would be parsed as the next request.
    """

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        status, headers, content = await run(self._respond, _environ(scope, message["body"]))
        if scope.get(TRUNCATED):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _respond(self, environ: "WSGIEnvironment") -> _Response:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            started.append((status, headers))

        parts: Iterable[bytes] = self._app(environ, start_response)
        try:
            content = b"".join(parts)
        finally:
            if close := getattr(parts, "close", None):
                close()
        status, fields = started[-1]
        # uvicorn adds the date.
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in fields
            if name != "Date"
        ]
        return int(status[:3]), headers, content


class _BridgeGreenlet(greenlet):
    """Greenlet of `run`, a class of its own so that `await_` recognises it."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call in a greenlet, and its result or error."""

    function: Any
    arguments: Any
    result: Any = None
    error: BaseException | None = None


_pool = threading.local()
"""Idle greenlets of a thread, for reuse: each new one maps memory for its stack."""


def _serve(call: _Call) -> None:
    """Make one call after another, in a greenlet. Switch to the parent with each call when it has ended."""
    parent = getcurrent().parent
    assert parent
    while True:
        try:
            call.result = call.function(*call.arguments)
        except GreenletExit:
            raise
        except BaseException as error:
            call.error = error
        call = parent.switch(call)


def _environ(scope: Scope, body: bytes) -> "WSGIEnvironment":
    (host, port), (client, _) = scope["server"] or ("", None), scope["client"] or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or ""),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        # A socket of both families reports IPv4 addresses as IPv6.
        "REMOTE_ADDR": client.removeprefix("::ffff:"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for field, content in scope["headers"]:
        # WSGI writes hyphens as underscores, so a field with an underscore could spoof one with a hyphen.
        # The body is complete, so its transfer encoding is of no use.
        if b"_" in field or field == b"transfer-encoding":
            continue
        name, value = field.decode("latin-1").upper().replace("-", "_"), content.decode("latin-1")
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            name = f"HTTP_{name}"
        environ[name] = f"{environ[name]},{value}" if name in environ else value
    if body:
        # A chunked body comes without a Content-Length.
        environ["CONTENT_LENGTH"] = str(len(body))
    if DEADLINE in scope:
        environ[DEADLINE] = scope[DEADLINE]
    return environ
