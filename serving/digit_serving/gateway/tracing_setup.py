"""Tracing setup: exporter and tracer from OpenTelemetry's standard environment variables."""

import logging
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from digit_serving.gateway.tracing import RequestTracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = logging.getLogger(__name__)


def create_tracer(settings: Settings) -> "RequestTracer | None":
    """Return a tracer that exports in the background, or None if tracing is off.

    Tracing is on if OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set and
    OTEL_SDK_DISABLED is not true. OpenTelemetry's SDK reads its other variables itself.
    """
    if not any(map(os.environ.get, _ENDPOINTS)) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning(
            "tracing is off: the OTEL_EXPORTER_… variables need the extra otel; "
            "install it in a clone of digit-serving: pip install '.[otel]'"
        )
        return None
    from digit_serving.gateway.tracing import RequestTracer

    defaults = {"service.name": "digits-gateway", "service.version": version("digit-serving")}
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the defaults.
    resource = Resource.create(defaults).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return RequestTracer(provider.get_tracer("digit_serving"), settings.model_server, provider.shutdown)


def _exporter() -> Any:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
