"""API routes under /v1: predictions, readings, feedback, and the models with their versions and tasks."""

from collections.abc import Collection

from flask import Blueprint, Response, request

from digit_serving.gateway import auth
from digit_serving.gateway.feedback import FeedbackView, LabellingViews
from digit_serving.gateway.queries import ModelSelector
from digit_serving.gateway.rate_limit import limit_rate
from digit_serving.gateway.services import Services
from digit_serving.gateway.views import Views

_CORS_HEADERS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-ID",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-ID",
    "Access-Control-Max-Age": "600",
}


def blueprint(services: Services) -> Blueprint:
    """Return the blueprint of /v1, with feedback if answers are kept, and labelling if keys protect it."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    settings, limiter = services.settings, services.limiter
    selector = ModelSelector(settings)
    views = Views(services, selector)
    api.post("/predict")(views.predict)
    api.post("/read")(views.read)
    api.get("/models")(views.models)
    if services.keeper:
        api.post("/feedback")(FeedbackView(services.keeper, services.upstream, services.metrics).feedback)
        if settings.offers_labelling:
            labelling = LabellingViews(selector, services.keeper, services.upstream)
            api.get("/feedback/unlabelled")(labelling.unlabelled)
            api.post("/feedback/labels")(labelling.label)
    if services.verifier:
        auth.require_api_key(api, services.verifier, limiter)
    if limiter:
        limit_rate(api, limiter)
    if settings.cors_origins:
        _enable_cors(api, settings.cors_origins)
    return api


def _enable_cors(api: Blueprint, origins: Collection[str]) -> None:
    """Allow pages of these origins, such as `https://app.example.com`, to call the API."""

    @api.after_request
    def add(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.origin
        if origin in origins:
            response.headers.update(_CORS_HEADERS | {"Access-Control-Allow-Origin": origin})
        return response
