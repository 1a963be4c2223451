"""The way to a collector of traces, where OpenTelemetry's standard variables name one."""

import logging
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from digit_serving.gateway.settings import Settings

if TYPE_CHECKING:
    from digit_serving.gateway.tracing import Traces

_log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def traces(settings: Settings) -> "Traces | None":
    """What makes the traces and sends them, in the background; None where they are off.

    They are on where OTEL_EXPORTER_OTLP_ENDPOINT is set, or the same for traces alone, and
    OTEL_SDK_DISABLED is not. OpenTelemetry's SDK reads the variables that set it.
    """
    if not any(map(os.environ.get, _ENDPOINTS)) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("no traces, though OTEL_… names a collector: in a clone, pip install '.[otel]'")
        return None
    from digit_serving.gateway.tracing import Traces

    service = {"service.name": "digits-gateway", "service.version": version("digit-serving")}
    # What the variables say of the service goes first.
    resource = Resource.create(service).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return Traces(provider.get_tracer("digit_serving"), settings.model_server, provider.shutdown)


def _exporter() -> Any:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
