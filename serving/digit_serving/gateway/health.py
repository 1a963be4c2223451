"""Health: the probes /livez and /readyz, and the metrics."""

import asyncio
import math
import time
from collections.abc import Callable

from flask import Blueprint, Response

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import ArtifactError
from digit_core.errors import DigitError, ModelNotFoundError
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import AsyncConnection
from digit_serving.gateway import tls
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.door import contained
from digit_serving.gateway.errors import NotReadyError
from digit_serving.gateway.observers.metrics import CONTENT_TYPE
from digit_serving.gateway.request import json_response
from digit_serving.gateway.schemas import Alive, Ready
from digit_serving.gateway.services import Services
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.upstream import default_version, describe_missing

_PROBE_TIMEOUT_SECONDS = 0.9
"""Below one second, the default timeout of Kubernetes's probes."""
_KEPT_SECONDS = 1.0


def probes(services: Services) -> Blueprint:
    """Return the routes /livez, /readyz and /metrics.

    The default model alone decides on readiness: a pod that has lost one of several models still answers for
    the others, and Kubernetes would withdraw it from all of them. A pod that has lost another model or a
    store, or whose certificate has expired, is ready as well, with a warning.
    """
    blueprint = Blueprint("probes", __name__)
    settings, model_server = services.settings, services.model_server
    name = settings.model_name
    model_warnings = ModelWarnings(settings, model_server)
    certificate = None
    if settings.tls_certificate:
        certificate = tls.server_certificate(settings.tls_certificate, settings.tls_key)
        about = "Unix time at which the certificate of DIGITS_TLS_CERTIFICATE ends."
        expiry = services.metrics.gauge("tls_certificate_expiry_timestamp_seconds", about)

    @blueprint.get("/livez")
    def livez() -> Response:
        document: Alive = {"status": "alive"}
        return json_response(document)

    @blueprint.get("/readyz")
    def readyz() -> Response:
        default = default_version(settings, name)
        missing = f"The model server has no model {name}."
        try:
            deadline = time.monotonic() + _PROBE_TIMEOUT_SECONDS
            versions = await_(model_server.versions(ModelRef(name), deadline=deadline))
            missing = describe_missing(default, versions)
            # TensorFlow Serving also lists the versions that it has unloaded.
            available = [status.version for status in versions if status.is_available]
            if not available:
                raise NotReadyError(missing)
            if default.version_label:
                await_(model_server.resolve(default, deadline=deadline))
        except ModelNotFoundError as error:
            raise NotReadyError(missing) from error
        except DigitError as error:
            raise NotReadyError("The model server does not answer.") from error
        warnings = await_(model_warnings.get(deadline))
        if services.limiter and not services.limiter.is_reachable():
            warnings.append("The store of DIGITS_RATE_LIMIT_STORE does not answer, so no rate limits apply.")
        for feature in services.features:
            with contained(feature):
                warnings += feature.warnings()
        if certificate and certificate.expiry < time.time():
            warnings.append("The certificate of DIGITS_TLS_CERTIFICATE has expired: callers refuse it.")
        document: Ready = {"status": "ready", "versions": available}
        return json_response({**document, "warnings": warnings} if warnings else document)

    @blueprint.get("/metrics")
    def exposition() -> Response:
        if certificate and math.isfinite(certificate.expiry):
            expiry.set(certificate.expiry)
        return Response(services.metrics.exposition(), content_type=CONTENT_TYPE)

    return blueprint


class ModelWarnings:
    """Sentences on versions that failed to load, and on models that do not answer or are left out.

    They are cached for a second: otherwise, each probe would ask the model server about every model, and list
    the models' folder. `clock` returns seconds, like time.monotonic.
    """

    def __init__(
        self, settings: Settings, model_server: AsyncConnection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._model_server, self._clock = settings, model_server, clock
        self._kept, self._kept_until = list[str](), -math.inf

    async def get(self, deadline: float) -> list[str]:
        """Return the sentences, which are at most a second old."""
        if self._clock() >= self._kept_until:
            self._kept = await self._ask(deadline)
            self._kept_until = self._clock() + _KEPT_SECONDS
        return [*self._kept]

    async def _ask(self, deadline: float) -> list[str]:
        file = self._settings.models_config
        folder = ModelsFolder(file.parent) if file else None
        names, left_out, versions = {*self._settings.models}, dict[str, str](), list[str]()
        if folder:
            try:
                left_out = await asyncio.to_thread(folder.left_out)
                versions = await asyncio.to_thread(folder.left_out_versions)
                names |= folder.read_config().base_paths.keys()
            except (ArtifactError, OSError):
                versions.append(
                    "models.config can't be read, so changes of it wait; `digits models ls` says why."
                )
        ordered = sorted(names)
        calls = (self._model_server.versions(ModelRef(name), deadline=deadline) for name in ordered)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        found = {
            name: [] if isinstance(answer, ModelNotFoundError) else answer
            for name, answer in zip(ordered, answers, strict=True)
            if isinstance(answer, (list, ModelNotFoundError))
        }
        failed = [
            f"Version {status.version} of the model {name} failed to load; the model server's log says why."
            for name, statuses in found.items()
            for status in statuses
            if status.error and not status.is_available
        ]
        absent = [
            describe_missing(ModelRef(name), statuses)
            for name, statuses in found.items()
            if name not in left_out and not any(status.is_available for status in statuses)
        ]
        models = [f"The model {name} is not served: {reason}." for name, reason in left_out.items()]
        return failed + absent + versions + models
