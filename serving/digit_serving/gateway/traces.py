"""The spans of a request, after OpenTelemetry's conventions: its own, its stages', and the call's."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from werkzeug import Request

from digit_client.errors import DigitError
from digit_serving.gateway.record import Call, Record

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

    def begin(self, record: Record, request: Request) -> None:
        """Begin the span of a request, in the trace of its headers where they name one."""
        record.span = self._tracer.start_span(
            f"{record.method} {record.route}",
            self._propagator.extract(request.headers),
            SpanKind.SERVER,
            _of_request(record, request),
            start_time=_nanoseconds(record.started),
        )

    def begin_call(self, call: Call, records: Sequence[Record]) -> dict[str, str]:
        """Begin the span of a call and return its context as headers.

        It is the child of the first of the requests that is traced, and linked to the others.
        """
        spans: list[Span] = [record.span for record in records]
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

    def end(self, record: Record) -> None:
        """End the span of a request, after those of its stages."""
        span = record.span
        if span.is_recording():
            self._make_stages(record)
            span.set_attribute("http.response.status_code", record.status)
            if record.predictions:
                span.set_attribute("digits.images", len(record.predictions))
                span.set_attribute("digits.model_version", record.predictions[0].model_version)
            if record.problem:
                span.set_attribute("error.type", record.problem)
            if record.status >= 500:
                span.set_status(StatusCode.ERROR)
        span.end()

    def _make_stages(self, record: Record) -> None:
        parent = set_span_in_context(record.span)
        if record.begun - record.started > _SHORTEST_WAIT:
            self._make("queue", parent, record.started, record.begun - record.started)
        if record.decode:
            self._make("decode", parent, record.read_from, record.decode)
        if record.normalise:
            # Several images are decoded and normalised in turn; the spans show the sums one after the other.
            self._make("normalise", parent, record.read_from + record.decode, record.normalise)
        for wait in record.waits:
            call = wait.call
            begun = call.started if call else record.ended
            self._make("queue", parent, wait.started, begun - wait.started)
            if call and not wait.leads:
                links = [Link(call.span.get_span_context())]
                self._make("shared call", parent, begun, (call.ended or record.ended) - begun, links)

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


def _of_request(record: Record, request: Request) -> Mapping[str, Any]:
    attributes = {
        "http.request.method": record.method,
        "http.route": record.route,
        "url.path": request.path,
        "url.scheme": request.scheme,
        "client.address": request.remote_addr,
        "user_agent.original": request.user_agent.string,
        "digits.request_id": record.request_id,
    }
    return {name: value for name, value in attributes.items() if value}
