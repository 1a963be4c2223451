"""Tracing: an OpenTelemetry span of each request. Needs the extra otel."""
