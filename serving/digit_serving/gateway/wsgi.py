"""Flask without what it looks for in every request and no route here has."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flask import Flask, Request
from flask.ctx import RequestContext
from flask.sessions import NullSession
from werkzeug.routing import MapAdapter, Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_NO_SESSION = NullSession()


class _Request(Request):
    @cached_property
    def blueprints(self) -> list[str]:
        return super().blueprints


class Gateway(Flask):
    """A Flask application that has no hosts, sessions, coroutines and functions for the end of a context.

    Paths without a variable part are looked up whole. What an error passed does not outlive its answer.
    """

    request_class = _Request

    def request_context(self, environ: "WSGIEnvironment") -> RequestContext:
        return RequestContext(self, environ, session=_NO_SESSION)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None
        request.url_rule = self._fixed.get((request.path, request.method))
        if request.url_rule:
            request.view_args = {}
            return None
        query = request.environ["QUERY_STRING"]
        return MapAdapter(self.url_map, "", "/", None, request.scheme, request.path, request.method, query)

    @cached_property
    def _fixed(self) -> dict[tuple[str, str], Rule]:
        """The rules without a variable part. What OPTIONS asks about is found out as Flask does it."""
        return {
            (rule.rule, method): rule
            for rule in self.url_map.iter_rules()
            if not rule.arguments
            for method in (rule.methods or set()) - {"OPTIONS"}
        }

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func

    def handle_user_exception(self, e: Exception) -> Any:
        answer = super().handle_user_exception(e)
        # An error holds all that it passed, bodies and pictures, and they it, until garbage is collected.
        error: BaseException | None = e
        while error and error.__traceback__:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__
        return answer

    def do_teardown_request(self, exc: object = None) -> None:
        pass

    def do_teardown_appcontext(self, exc: object = None) -> None:
        pass
