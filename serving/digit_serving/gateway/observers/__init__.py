"""Observers: features that watch requests, each in a module of its own (as middleware of dramatiq).

    began ─ called, for each call to the model server ─ answered ─ ended

The way of a request emits these moments and knows no feature.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flask import Request

from digit_core.recognition import Classify
from digit_core.results import Answer, Prediction, Reading
from digit_serving.gateway.parsing import Body
from digit_serving.gateway.request import Facts, RequestContext, Route

_log = logging.getLogger(__name__)


class Observer:
    """Watches requests, in the event loop: a subclass overrides the moments that it needs.

    A moment takes little time, since the request waits for it. An error is logged and fails no request.
    """

    def began(self, context: RequestContext, received: Request) -> None:
        """Watch a request that has left the admission queue."""

    def called(
        self, context: RequestContext, route: Route, asked: Classify, answers: Sequence[Answer]
    ) -> None:
        """Watch the answers of the route's version to a batch."""

    def answered(
        self, context: RequestContext, route: Route, body: Body, results: Mapping[int, Prediction | Reading]
    ) -> None:
        """Watch the results of a request's pictures, by index, without those that have an error."""

    def ended(self, facts: Facts) -> None:
        """Watch the end of a request: its response is known."""


class Observers:
    """Methods of observers by moment. A moment that no observer overrides costs a request nothing.

    An error of a feature's observer is logged; the gateway's own observers raise none.
    """

    def __init__(self, own: Sequence[Observer] = (), brought: Sequence[Observer] = ()) -> None:
        def watching(moment: str) -> Sequence[Callable[..., None]]:
            features = map(_guarded, _overriding(brought, moment))
            return [*features, *_overriding(own, moment)]

        self.began, self.called = watching("began"), watching("called")
        self.answered, self.ended = watching("answered"), watching("ended")


def _overriding(observers: Iterable[Observer], moment: str) -> Iterable[Callable[..., None]]:
    plain = getattr(Observer, moment)
    return (getattr(each, moment) for each in observers if getattr(type(each), moment) is not plain)


def _guarded(watch: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls an observer's method and logs its error."""

    def call(*arguments: Any) -> None:
        try:
            watch(*arguments)
        except Exception:
            _log.exception("%s failed", watch.__qualname__)

    return call
