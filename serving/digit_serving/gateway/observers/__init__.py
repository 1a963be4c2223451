"""Observers: features that watch requests, each in a module of its own (as middleware of dramatiq).

    began ─ called, for each call to the model server ─ answered ─ ended

The way of a request emits these moments and knows no feature: metrics, the log, traces, the comparisons with
the shadow, and the sampler of pictures for feedback.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from flask import Request

from digit_core.recognition import Classify
from digit_core.results import Answer, Prediction, Reading
from digit_serving.gateway.parsing import Body
from digit_serving.gateway.request import Facts, RequestContext, Route


class Observer:
    """Watches requests, in the event loop: a subclass overrides the moments that it needs.

    A moment takes little time and raises nothing: the request waits for it.
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
        """Watch the results of a request's pictures, by index; errors have none."""

    def ended(self, facts: Facts) -> None:
        """Watch the end of a request: its response is known."""


class Observers:
    """Methods of observers by moment: one that no observer overrides costs a request nothing."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        watching = list(observers)
        self.began = _overriding(watching, "began")
        self.called = _overriding(watching, "called")
        self.answered = _overriding(watching, "answered")
        self.ended = _overriding(watching, "ended")


def _overriding(observers: Iterable[Observer], moment: str) -> Sequence[Callable[..., None]]:
    plain = getattr(Observer, moment)
    return [getattr(each, moment) for each in observers if getattr(type(each), moment) is not plain]
