"""Services: the objects that all requests of a worker share."""

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from digit_core.errors import how_to_install
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway import tls
from digit_serving.gateway.auth import KeyVerifier
from digit_serving.gateway.observe import Metrics
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.shadow import Shadow
from digit_serving.gateway.upstream import Upstream

if TYPE_CHECKING:
    # They need the extras feedback and otel.
    from digit_serving.gateway.answer_keeper import AnswerKeeper
    from digit_serving.gateway.tracing import RequestTracer

_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Shared objects; None stands for what the settings leave out."""

    settings: Settings
    metrics: Metrics
    model_server: AsyncConnection
    upstream: Upstream
    tracer: "RequestTracer | None"
    verifier: KeyVerifier | None
    limiter: RateLimiter | None
    keeper: "AnswerKeeper | None"
    shadow: Shadow | None

    @classmethod
    def create(cls, settings: Settings) -> Self:
        """Create the objects in the event loop that serves."""
        metrics, tracer = Metrics(), create_tracer(settings)
        model_server = AsyncConnection(settings.model_server, tls.channel_credentials(settings))
        shadow = Shadow(settings, metrics) if settings.has_shadow else None
        limits, store = settings.rate_limit, settings.rate_limit_store
        if settings.feedback:
            from digit_serving.gateway.answer_keeper import AnswerKeeper

            keeper: AnswerKeeper | None = AnswerKeeper(settings, metrics)
        else:
            keeper = None
        return cls(
            settings,
            metrics,
            model_server,
            Upstream(settings, model_server, tracer, shadow),
            tracer,
            KeyVerifier(settings.api_keys) if settings.api_keys else None,
            RateLimiter(limits, store, metrics.rate_limit_store_failures.inc) if limits else None,
            keeper,
            shadow,
        )

    async def close(self) -> None:
        """Finish the work in the background."""
        if self.shadow:
            await self.shadow.close()
        await self.model_server.close()
        if self.keeper:
            await asyncio.to_thread(self.keeper.close)
        if self.tracer:
            self.tracer.shutdown()
        self.metrics.write()


def create_tracer(settings: Settings) -> "RequestTracer | None":
    """Return a tracer, or None if tracing is off.

    Tracing is on if OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set and
    OTEL_SDK_DISABLED is not true.
    """
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_disabled or not any(map(os.environ.get, _OTLP_ENDPOINTS)):
        return None
    try:
        from digit_serving.gateway.tracing import RequestTracer
    except ImportError:
        _log.warning(
            "tracing is off: the OTEL_EXPORTER_… variables need the extra otel; %s", how_to_install("otel")
        )
        return None
    return RequestTracer(settings.model_server)
