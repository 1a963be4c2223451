"""The spans of a request, after OpenTelemetry's conventions: its own, its stages', and the call's."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from werkzeug import Request

from digit_client import DigitError
from digit_serving.gateway.context import Call, RequestContext

_METHOD = "tensorflow.serving.PredictionService/Predict"
_SHORTEST_WAIT = 0.001  # seconds; a request that is taken up at once waits for less


class Traces:
    """Makes the spans. Those whose context others need are begun in time, the stages' are made at the end.

    `close` sends those that are not sent yet.
    """

    def __init__(self, tracer: Tracer, target: str, close: Callable[[], None]) -> None:
        self.close = close
        self._tracer = tracer
        self._call_attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": _METHOD,
            **_address(target),
        }
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, context: RequestContext, request: Request) -> None:
        """Begin the span of a request, in the trace of its headers where they name one."""
        context.span = self._tracer.start_span(
            f"{context.method} {context.route}",
            self._propagator.extract(request.headers),
            SpanKind.SERVER,
            _of_request(context, request),
            start_time=_nanoseconds(context.started),
        )

    def begin_call(self, call: Call, records: Sequence[RequestContext]) -> dict[str, str]:
        """Begin the span of a call and return its context as headers.

        It is the child of the first of the requests that is traced, and linked to the others.
        """
        spans: list[Span] = [context.span for context in records]
        parent = next((span for span in spans if span.is_recording()), spans[0])
        call.span = self._tracer.start_span(
            _METHOD,
            set_span_in_context(parent),
            SpanKind.CLIENT,
            {
                **self._call_attributes,
                "digits.images": call.images,
                "digits.requests": call.requests,
            },
            [Link(span.get_span_context()) for span in spans if span is not parent],
        )
        headers: dict[str, str] = {}
        self._propagator.inject(headers, set_span_in_context(call.span))
        return headers

    def end_call(self, call: Call, error: Exception | None) -> None:
        """End the span of a call."""
        if error:
            reason = getattr(error, "reason", None)
            code = reason or (error.code if isinstance(error, DigitError) else type(error).__name__)
            call.span.set_attribute("error.type", code)
            call.span.set_status(StatusCode.ERROR)
        else:
            call.span.set_attribute("rpc.response.status_code", "OK")
        call.span.end()

    def end(self, context: RequestContext) -> None:
        """End the span of a request, after those of its stages."""
        span = context.span
        if span.is_recording():
            self._make_stages(context)
            span.set_attribute("http.response.status_code", context.status)
            if context.predictions:
                span.set_attribute("digits.images", len(context.predictions))
                span.set_attribute("digits.model_version", context.predictions[0].model_version)
            if context.problem:
                span.set_attribute("error.type", context.problem)
            if context.status >= 500:
                span.set_status(StatusCode.ERROR)
        span.end()

    def _make_stages(self, context: RequestContext) -> None:
        parent = set_span_in_context(context.span)
        if context.begun - context.started > _SHORTEST_WAIT:
            self._make("queue", parent, context.started, context.begun - context.started)
        if context.decode:
            self._make("decode", parent, context.read_from, context.decode)
        if context.normalise:
            # Several images are decoded and normalised in turn; the spans show the sums one after the other.
            self._make("normalise", parent, context.read_from + context.decode, context.normalise)
        for wait in context.waits:
            call = wait.call
            begun = call.started if call else context.ended
            self._make("queue", parent, wait.started, begun - wait.started)
            if call and not wait.leads:
                links = [Link(call.span.get_span_context())]
                self._make("shared call", parent, begun, (call.ended or context.ended) - begun, links)

    def _make(
        self, name: str, parent: Context, started: float, seconds: float, links: Sequence[Link] = ()
    ) -> None:
        begun = _nanoseconds(started)
        span = self._tracer.start_span(name, parent, links=links, start_time=begun)
        span.end(begun + int(seconds * 1e9))


def _nanoseconds(moment: float) -> int:
    """The time of day at a moment of time.perf_counter's."""
    return int(time.time_ns() - (time.perf_counter() - moment) * 1e9)


def _address(target: str) -> dict[str, str | int]:
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    return (
        {"server.address": host, "server.port": int(port)} if port.isdecimal() else {"server.address": target}
    )


def _of_request(context: RequestContext, request: Request) -> Mapping[str, Any]:
    attributes = {
        "http.request.method": context.method,
        "http.route": context.route,
        "url.path": request.path,
        "url.scheme": request.scheme,
        "client.address": request.remote_addr,
        "user_agent.original": request.user_agent.string,
        "digits.request_id": context.request_id,
    }
    return {name: value for name, value in attributes.items() if value}
