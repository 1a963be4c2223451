"""OpenTelemetry span of a request, with its stages as attributes. Needs the extra otel."""

import os
import time
from importlib.metadata import version

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from werkzeug import Request

from digit_serving.gateway.door import Feature
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.observers import Observer
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.request import Facts, RequestContext
from digit_serving.gateway.settings import Settings

_ATTRIBUTES = {"version": "digits.model_version"}
"""Attributes whose names differ from those in the log."""
_MAX_STATE = 512
"""Longest `tracestate` that is propagated, as W3C Trace Context recommends: requests that share a call share
gRPC's limit of metadata, so that a long one of one caller would fail all of them."""


class Tracing(Feature, Observer):
    """Creates a span for each request, with OpenTelemetry's semantic conventions.

    The span is a child of the caller's span, which the header `traceparent` names, and the parent of the
    model server's spans. Spans are exported in the background, as OpenTelemetry's environment variables say.
    """

    def __init__(self, settings: Settings, metrics: Metrics, work: Work) -> None:
        self.observer = self
        self._spans: dict[RequestContext, Span] = {}
        """Span of each request that has not ended."""
        defaults = {"service.name": "digits-gateway", "service.version": version("digits")}
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the defaults.
        provider = TracerProvider(resource=Resource.create(defaults).merge(OTELResourceDetector().detect()))
        provider.add_span_processor(BatchSpanProcessor(_exporter()))
        self._shutdown = provider.shutdown
        self._tracer = provider.get_tracer("digit_serving")
        self._propagator = TraceContextTextMapPropagator()

    def began(self, context: RequestContext, received: Request) -> None:
        """Start the request's span, at the arrival of its last byte."""
        attributes = {
            "http.request.method": context.method,
            "http.route": context.rule,
            "url.path": received.path,
            "url.scheme": received.scheme,
            "client.address": received.remote_addr,
            "user_agent.original": received.user_agent.string,
            "digits.request_id": context.request_id,
        }
        self._spans[context] = span = self._tracer.start_span(
            f"{context.method} {context.rule}",
            self._propagator.extract(received.headers),
            SpanKind.SERVER,
            {name: value for name, value in attributes.items() if value},
            start_time=time.time_ns() - int((time.monotonic() - context.arrived_at) * 1e9),
        )
        headers: dict[str, str] = {}
        self._propagator.inject(headers, set_span_in_context(span))
        if len(headers.get("tracestate", "")) > _MAX_STATE:
            del headers["tracestate"]
        context.trace = headers

    def ended(self, facts: Facts) -> None:
        """End the request's span, with its outcome and the seconds of its stages."""
        context = facts.context
        span = self._spans.pop(context)
        if span.is_recording():
            span.set_attribute("http.response.status_code", context.status)
            for name, value in facts.outcome.items():
                span.set_attribute(_ATTRIBUTES.get(name, f"digits.{name}"), value)
            for stage, seconds in facts.stages.items():
                span.set_attribute(f"digits.{stage}_seconds", seconds)
            if context.waits:
                span.set_attribute("digits.model_server_seconds", facts.model_server_seconds)
            if context.problem_code:
                span.set_attribute("error.type", context.problem_code)
            if context.status >= 500:
                span.set_status(StatusCode.ERROR)
        span.end()

    async def close(self) -> None:
        """Export the last spans."""
        self._shutdown()


def _exporter() -> SpanExporter:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
