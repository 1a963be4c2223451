"""API routes under /v1: predictions, readings, feedback, and the models with their versions and tasks."""

from typing import TYPE_CHECKING

import orjson
from flask import Blueprint, Response, g, request

from digit_client import ModelNotFoundError, TaskCard, UnavailableError
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.connection import AsyncConnection
from digit_serving.gateway import auth, schemas, security_headers
from digit_serving.gateway.answers import AnswerViews
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.rate_limit import RateLimiter, limit_rate
from digit_serving.gateway.request_parsing import MODEL_PARAMETERS, ModelSelector, check_names
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.shadow import Shadow

if TYPE_CHECKING:
    from digit_serving.gateway.answer_keeper import AnswerKeeper


def blueprint(
    settings: Settings,
    model_server: AsyncConnection,
    router: Router,
    metrics: Metrics,
    keeper: "AnswerKeeper | None",
    shadow: Shadow | None,
    limiter: RateLimiter | None,
) -> Blueprint:
    """Return the blueprint of /v1, with feedback if answers are kept, and labelling if keys protect it."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    selector = ModelSelector(settings)
    answers = AnswerViews(settings, selector, router, keeper, shadow)
    api.post("/predict")(answers.predict)
    api.post("/read")(answers.read)
    api.get("/models")(_Models(settings, selector, model_server, router).models)
    if keeper:
        # Lazy, because they need the extra feedback.
        from digit_serving.gateway.feedback import FeedbackView
        from digit_serving.gateway.labelling import LabellingViews

        api.post("/feedback")(FeedbackView(keeper, router, metrics).feedback)
        if settings.offers_labelling:
            labelling = LabellingViews(selector, keeper, router)
            api.get("/feedback/unlabelled")(labelling.unlabelled)
            api.post("/feedback/labels")(labelling.label)
    if settings.api_keys:
        auth.require_api_key(api, settings.api_keys, limiter)
    if limiter:
        limit_rate(api, limiter)
    security_headers.enable_cors(api, settings.cors_origins)
    return api


class _Models:
    """View that describes a model and names the others."""

    def __init__(
        self, settings: Settings, selector: ModelSelector, model_server: AsyncConnection, router: Router
    ) -> None:
        self._settings = settings
        self._selector = selector
        self._model_server = model_server
        self._router = router

    def models(self) -> Response:
        check_names(request.args, MODEL_PARAMETERS)
        name = self._selector.model(request.args).name
        context: RequestContext = g.context
        context.requested = ModelRef(name)
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
