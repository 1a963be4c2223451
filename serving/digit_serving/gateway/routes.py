"""API routes under /v1: predictions, readings, feedback, and the models with their versions and tasks."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import orjson
from flask import Blueprint, Response, g, request

from digit_core.artifact.task_card import TaskCard
from digit_core.errors import ModelNotFoundError, UnavailableError
from digit_core.tfserving.codec import ModelRef
from digit_serving.gateway import auth, schemas
from digit_serving.gateway.answers import AnswerViews
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.feedback import FeedbackView, LabellingViews
from digit_serving.gateway.rate_limit import limit_rate
from digit_serving.gateway.request_parsing import ModelQuery, ModelSelector, parse_query
from digit_serving.gateway.routing import Router

if TYPE_CHECKING:
    from digit_serving.gateway.app import Services

_CORS_HEADERS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-ID",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-ID",
    "Access-Control-Max-Age": "600",
}


def blueprint(services: "Services", router: Router) -> Blueprint:
    """Return the blueprint of /v1, with feedback if answers are kept, and labelling if keys protect it."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    settings, limiter = services.settings, services.limiter
    selector = ModelSelector(settings)
    answers = AnswerViews(services, selector, router)
    api.post("/predict")(answers.predict)
    api.post("/read")(answers.read)
    api.get("/models")(_Models(services, selector, router).models)
    if services.keeper:
        api.post("/feedback")(FeedbackView(services.keeper, router, services.metrics).feedback)
        if settings.offers_labelling:
            labelling = LabellingViews(selector, services.keeper, router)
            api.get("/feedback/unlabelled")(labelling.unlabelled)
            api.post("/feedback/labels")(labelling.label)
    if settings.api_keys:
        auth.require_api_key(api, settings.api_keys, limiter)
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


class _Models:
    """View that describes a model and names the others."""

    def __init__(self, services: "Services", selector: ModelSelector, router: Router) -> None:
        self._settings = services.settings
        self._model_server = services.model_server
        self._selector = selector
        self._router = router

    def models(self) -> Response:
        context: RequestContext = g.context
        context.requested = self._selector.model(parse_query(ModelQuery, request.args))
        name = context.model
        versions, task = self._router.statuses(name), self._task(context)
        content: schemas.Models = {
            "name": name,
            "versions": [{"version": status.version, "state": status.state} for status in versions],
            "labels": self._resolve_labels(name),
            "task": task.to_document() if task else None,  # type: ignore[typeddict-item]
            "models": tuple(dict.fromkeys((*self._settings.models, name))),
            "feedback": self._settings.for_model(name).feedback and not (task and task.is_multi_label),
            "request_id": context.request_id,
        }
        return Response(orjson.dumps(content), content_type="application/json")

    def _resolve_labels(self, name: str) -> dict[str, int]:
        """Return the version of each label that has one. TensorFlow Serving has no call that lists labels."""
        labels = {}
        model = self._settings.for_model(name)
        used = (model.default_label, model.canary_label, model.shadow_label, *self._settings.labels)
        for label in dict.fromkeys(filter(None, used)):
            try:
                labelled = ModelRef(name, label=label)
                labels[label] = await_(self._model_server.resolve(labelled, timeout=self._settings.deadline))
            except ModelNotFoundError:
                continue
        return labels

    def _task(self, context: RequestContext) -> TaskCard | None:
        """Return the model's task card, None while no version answers."""
        try:
            return self._router.task(context)
        except (ModelNotFoundError, UnavailableError):
            return None
