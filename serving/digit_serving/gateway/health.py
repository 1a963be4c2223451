"""Whether the gateway lives, whether it can answer, and what it has counted."""

import orjson
from flask import Blueprint, Response

from digit_client.errors import DigitError
from digit_client.model_server import AsyncModelServer
from digit_client.wire import ModelRef
from digit_serving.gateway.bridge import await_
from digit_serving.gateway.errors import NotReadyError
from digit_serving.gateway.metrics import CONTENT_TYPE, Metrics
from digit_serving.gateway.routing import default_model
from digit_serving.gateway.schemas import Alive, Ready
from digit_serving.gateway.settings import Settings

# Probes come every few seconds and give up after one.
_PROBE_SECONDS = 0.9


def blueprint(settings: Settings, model_server: AsyncModelServer, metrics: Metrics) -> Blueprint:
    """The routes for whoever runs this."""
    health = Blueprint("health", __name__)

    @health.get("/livez")
    def livez() -> Response:
        document: Alive = {"status": "alive"}
        return Response(orjson.dumps(document), content_type="application/json")

    @health.get("/readyz")
    def readyz() -> Response:
        # A version that has ended is still listed, so the list alone says nothing.
        try:
            versions = await_(model_server.versions(ModelRef(settings.model_name), timeout=_PROBE_SECONDS))
        except DigitError as error:
            raise NotReadyError("The model server does not answer.") from error
        available = [status.version for status in versions if status.is_available]
        if not available:
            raise NotReadyError("No version of the model is available.")
        if settings.default_label:
            _check_default(settings, model_server)
        document: Ready = {"status": "ready", "versions": available}
        return Response(orjson.dumps(document), content_type="application/json")

    @health.get("/metrics")
    def text() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE)

    return health


def _check_default(settings: Settings, model_server: AsyncModelServer) -> None:
    try:
        await_(model_server.resolve(default_model(settings), timeout=_PROBE_SECONDS))
    except DigitError as error:
        raise NotReadyError(f"No version carries the label {settings.default_label}.") from error
