"""OpenTelemetry spans of a request, its stages, and the calls to the model server. Needs the extra otel."""

import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from werkzeug import Request

from digit_core.errors import DigitError
from digit_serving.gateway.request import Call, RequestContext

_PREDICT_METHOD = "tensorflow.serving.PredictionService/Predict"
_ATTRIBUTES = {"version": "digits.model_version"}
"""Attributes of facts with another name in the log."""
_MIN_ADMISSION_SECONDS = 0.001
"""Shortest wait for admission that gets a span; a request that is admitted at once waits for less."""


class RequestTracer:
    """Creates the spans of requests, with OpenTelemetry's semantic conventions.

    The spans of a request and of a call are created when it starts, because other spans need their context;
    the spans of stages when the request ends. Spans are exported in the background, as OpenTelemetry's
    environment variables say. `target` is the model server's address.
    """

    def __init__(self, target: str) -> None:
        defaults = {"service.name": "digits-gateway", "service.version": version("digits")}
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the defaults.
        provider = TracerProvider(resource=Resource.create(defaults).merge(OTELResourceDetector().detect()))
        provider.add_span_processor(BatchSpanProcessor(_exporter()))
        self.shutdown = provider.shutdown
        """Export the last spans."""
        self._tracer = provider.get_tracer("digit_serving")
        self._call_attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": _PREDICT_METHOD,
            **_address_attributes(target),
        }
        self._propagator = TraceContextTextMapPropagator()

    def start_request(self, context: RequestContext, request: Request) -> None:
        """Start the request's span, in the caller's trace if the header `traceparent` names one."""
        attributes = {
            "http.request.method": context.method,
            "http.route": context.route,
            "url.path": request.path,
            "url.scheme": request.scheme,
            "client.address": request.remote_addr,
            "user_agent.original": request.user_agent.string,
            "digits.request_id": context.request_id,
        }
        context.span = self._tracer.start_span(
            f"{context.method} {context.route}",
            self._propagator.extract(request.headers),
            SpanKind.SERVER,
            {name: value for name, value in attributes.items() if value},
            start_time=_unix_nanoseconds(context.arrived_at),
        )

    def end_request(self, context: RequestContext, outcome: Mapping[str, Any]) -> None:
        """Create the spans of the request's stages, and end the request's span with the outcome."""
        span = context.span
        if span.is_recording():
            self._create_stages(context)
            span.set_attribute("http.response.status_code", context.status)
            for name, value in outcome.items():
                span.set_attribute(_ATTRIBUTES.get(name, f"digits.{name}"), value)
            if context.problem_code:
                span.set_attribute("error.type", context.problem_code)
            if context.status >= 500:
                span.set_status(StatusCode.ERROR)
        span.end()

    def start_call(self, call: Call, contexts: Sequence[RequestContext]) -> dict[str, str]:
        """Start the span of a call that these requests share, and return its context as headers.

        Its parent is the span of the first sampled request; the spans of the other requests are linked.
        """
        spans: list[Span] = [context.span for context in contexts]
        parent = next((span for span in spans if span.is_recording()), spans[0])
        call.span = self._tracer.start_span(
            _PREDICT_METHOD,
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

    def _create_stages(self, context: RequestContext) -> None:
        parent = set_span_in_context(context.span)
        admission = context.dequeued_at - context.arrived_at
        if admission > _MIN_ADMISSION_SECONDS:
            self._create_span("queue", parent, context.arrived_at, admission)
        if context.decode_seconds:
            self._create_span("decode", parent, context.decode_started_at, context.decode_seconds)
        if context.normalise_seconds:
            # Several images alternate between the stages; the spans show the two sums one after the other.
            start = context.decode_started_at + context.decode_seconds
            self._create_span("normalise", parent, start, context.normalise_seconds)
        if context.find_seconds:
            self._create_span("find", parent, context.find_started_at, context.find_seconds)
        for wait in context.waits:
            call = wait.call
            start = call.started_at if call else context.ended_at
            self._create_span("queue", parent, wait.started_at, start - wait.started_at)
            if call and not wait.is_leader:
                links = [Link(call.span.get_span_context())]
                seconds = (call.ended_at or context.ended_at) - start
                self._create_span("shared call", parent, start, seconds, links)

    def _create_span(
        self, name: str, parent: Context, start: float, seconds: float, links: Sequence[Link] = ()
    ) -> None:
        nanoseconds = _unix_nanoseconds(start)
        span = self._tracer.start_span(name, parent, links=links, start_time=nanoseconds)
        span.end(nanoseconds + int(seconds * 1e9))


def _unix_nanoseconds(moment: float) -> int:
    """Convert a time of time.monotonic to Unix time in nanoseconds."""
    return int(time.time_ns() - (time.monotonic() - moment) * 1e9)


def _address_attributes(target: str) -> dict[str, str | int]:
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    return (
        {"server.address": host, "server.port": int(port)} if port.isdecimal() else {"server.address": target}
    )


def _exporter() -> SpanExporter:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
