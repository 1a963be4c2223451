"""Services: objects that all requests of a worker share, as the settings choose them."""

from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway import tls
from digit_serving.gateway.auth import KeyVerifier
from digit_serving.gateway.door import contained, features
from digit_serving.gateway.edge.work import Work
from digit_serving.gateway.observers import Observers
from digit_serving.gateway.observers.log import RequestLog
from digit_serving.gateway.observers.metrics import Metrics
from digit_serving.gateway.rate_limit import RateLimiter
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import Upstream


class Services:
    """Objects that all requests of a worker share; None stands for what the settings leave out.

    Create them in the event loop that serves.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = metrics = Metrics()
        self.work = Work(settings)
        self.features = [feature(settings, metrics, self.work) for feature in features(settings)]
        brought = [feature.observer for feature in self.features if feature.observer]
        self.observers = Observers((metrics, RequestLog(settings)), brought)
        self.model_server = AsyncConnection(settings.model_server, tls.channel_credentials(settings))
        self.upstream = Upstream(settings, self.model_server, self.observers, self.features)
        self.verifier = KeyVerifier(settings.api_keys) if settings.api_keys else None
        limits, store = settings.rate_limit, settings.rate_limit_store
        # Keys may have limits of their own.
        has_limits = bool(limits or settings.api_keys)
        on_failure = metrics.rate_limit_store_failures().inc
        self.limiter = RateLimiter(limits, store, on_failure) if has_limits else None

    async def close(self) -> None:
        """Finish the work in the background."""
        await self.model_server.close()
        for feature in self.features:
            with contained(feature):
                await feature.close()
        self.metrics.write()
