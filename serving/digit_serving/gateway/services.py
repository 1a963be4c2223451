"""Services: objects that all requests of a worker share, as the settings choose them."""

import logging
import os
from typing import TYPE_CHECKING

from digit_core.errors import how_to_install
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway import tls
from digit_serving.gateway.auth import KeyVerifier
from digit_serving.gateway.door import contained, features
from digit_serving.gateway.observers import Observers
from digit_serving.gateway.observers.log import RequestLog
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.observers.shadow import Shadow
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import Upstream
from digit_serving.gateway.work import Work

if TYPE_CHECKING:
    # It needs the extra otel.
    from digit_serving.gateway.observers.tracing import Tracing

_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = logging.getLogger(__name__)


class Services:
    """Objects that all requests of a worker share; None stands for what the settings leave out.

    Create them in the event loop that serves.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = metrics = Metrics()
        self.tracing = create_tracing()
        self.shadow = Shadow(settings, metrics) if settings.has_shadow else None
        self.work = Work(settings)
        self.features = [feature(settings, metrics, self.work) for feature in features(settings)]
        brought = (feature.observer for feature in self.features)
        self.observers = Observers(
            filter(None, (self.tracing, self.shadow, *brought, metrics, RequestLog(settings)))
        )
        self.model_server = AsyncConnection(settings.model_server, tls.channel_credentials(settings))
        self.upstream = Upstream(settings, self.model_server, self.observers)
        self.verifier = KeyVerifier(settings.api_keys) if settings.api_keys else None
        limits, store = settings.rate_limit, settings.rate_limit_store
        # Keys may have limits of their own.
        has_limits = bool(limits or settings.api_keys)
        on_failure = metrics.rate_limit_store_failures().inc
        self.limiter = RateLimiter(limits, store, on_failure) if has_limits else None

    async def close(self) -> None:
        """Finish the work in the background."""
        if self.shadow:
            await self.shadow.close()
        await self.model_server.close()
        for feature in self.features:
            with contained(feature):
                await feature.close()
        if self.tracing:
            self.tracing.shutdown()
        self.metrics.write()


def create_tracing() -> "Tracing | None":
    """Return the tracing if one of _OTLP_ENDPOINTS is set and OTEL_SDK_DISABLED is not true, else None."""
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_disabled or not any(map(os.environ.get, _OTLP_ENDPOINTS)):
        return None
    try:
        from digit_serving.gateway.observers.tracing import Tracing
    except ImportError:
        _log.warning(
            "tracing is off: the OTEL_EXPORTER_… variables need the extra otel; %s", how_to_install("otel")
        )
        return None
    return Tracing()
