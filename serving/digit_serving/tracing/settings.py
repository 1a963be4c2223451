"""Settings of tracing: OpenTelemetry's own environment variables."""

import logging
import os
from functools import cached_property
from importlib.util import find_spec

from pydantic import BaseModel

from digit_core.errors import how_to_install

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = logging.getLogger(__name__)


class TracingSettings(BaseModel):
    """Tracing has no field of its own: the variables of OpenTelemetry turn it on."""

    @cached_property
    def has_tracing(self) -> bool:
        """True if one of _ENDPOINTS is set and OTEL_SDK_DISABLED is not true. Log a missing extra."""
        is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        if is_disabled or not any(map(os.environ.get, _ENDPOINTS)):
            return False
        if find_spec("opentelemetry"):
            return True
        _log.warning(
            "tracing is off: the OTEL_EXPORTER_… variables need the extra otel; %s", how_to_install("otel")
        )
        return False
