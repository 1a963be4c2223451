"""API routes under /v1: predictions, readings, feedback, and the models with their versions and tasks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson
from flask import Blueprint, Response, g, request

from digit_client import ModelNotFoundError, UnavailableError
from digit_client.tfserving.codec import ModelRef
from digit_client.tfserving.model_server import AsyncModelServer
from digit_serving.gateway import auth, responses, schemas, security_headers
from digit_serving.gateway.asgi import await_
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.image_processing import ImageProcessor, to_image
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.query_parsing import ModelSelector, parse_include, parse_top
from digit_serving.gateway.rate_limit import RateLimiter, limit_rate
from digit_serving.gateway.recognition import Recognizer
from digit_serving.gateway.request_parsing import RequestParser
from digit_serving.gateway.routing import Router, default_version
from digit_serving.gateway.scheduling import Scheduler
from digit_serving.gateway.settings import Settings
from digit_serving.gateway.shadow import Shadow

if TYPE_CHECKING:
    from digit_serving.gateway.answer_keeper import AnswerKeeper


def blueprint(
    settings: Settings,
    model_server: AsyncModelServer,
    router: Router,
    metrics: Metrics,
    keeper: "AnswerKeeper | None",
    shadow: Shadow | None,
    limiter: RateLimiter | None,
) -> Blueprint:
    """Return the blueprint of /v1, with feedback if answers are kept, and labelling if keys protect it."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    selector = ModelSelector(settings)
    recognition = _Recognition(settings, selector, router, keeper, shadow)
    api.post("/predict")(recognition.predict)
    api.post("/read")(recognition.read)
    api.get("/models")(_Models(settings, selector, model_server, router).models)
    if keeper:
        # Lazy, because they need the extra feedback.
        from digit_serving.gateway.feedback import FeedbackView
        from digit_serving.gateway.labelling import LabellingViews

        api.post("/feedback")(FeedbackView(keeper, router, metrics).feedback)
        if settings.offers_labelling:
            labelling = LabellingViews(settings, selector, keeper, router)
            api.get("/feedback/unlabelled")(labelling.unlabelled)
            api.post("/feedback/labels")(labelling.label)
    if settings.api_keys:
        auth.require_api_key(api, settings.api_keys)
    if limiter:
        limit_rate(api, limiter)
    security_headers.enable_cors(api, settings.cors_origins)
    return api


class _Recognition:
    """Views that answer pictures, and have the answers kept for feedback and compared, if anybody does so."""

    def __init__(
        self,
        settings: Settings,
        selector: ModelSelector,
        router: Router,
        keeper: "AnswerKeeper | None",
        shadow: Shadow | None,
    ) -> None:
        scheduler = Scheduler(settings)
        self._selector = selector
        self._keeper = keeper
        self._shadow = shadow
        self._parser = RequestParser(settings, scheduler)
        self._recognizer = Recognizer(settings, self._parser, ImageProcessor(settings, scheduler), router)

    def predict(self) -> Response:
        requested = self._selector.version(request.args)
        include, top = parse_include(request.args, ("image", "labels")), parse_top(request.args)
        context: RequestContext = g.context
        context.model = requested.name
        body = self._parser.parse(request, context)
        predictions, batches, task = self._recognizer.predict(body, requested, context)
        context.predictions = predictions
        if self._keeper:
            self._keeper.keep_predictions(context, predictions, batches, task, body)
        if self._shadow:
            self._shadow.compare_predictions(requested, context, predictions, batches)
        documents = responses.prediction_documents(predictions, include, top)
        if "image" in include:
            inputs = (to_image(row, task) for batch in batches for row in batch)
            responses.add_images(documents, inputs)
        first = predictions[0]
        content: schemas.Predictions = {
            "model": responses.model_document(requested.name, first.model_version, first.labels),
            "predictions": documents,
            "request_id": context.request_id,
        }
        return _json_response(content)

    def read(self) -> Response:
        requested = self._selector.version(request.args)
        include = parse_include(request.args, ("image",))
        context: RequestContext = g.context
        context.model = requested.name
        body = self._parser.parse(request, context)
        answers, task = self._recognizer.read(body, requested, context)
        context.readings = [reading for reading, _ in answers]
        if self._keeper:
            self._keeper.keep_readings(context, answers, body)
        if self._shadow:
            self._shadow.compare_readings(requested, context, answers)
        documents = [responses.reading_document(reading) for reading in context.readings]
        if "image" in include:
            for document, (_, glyphs) in zip(documents, answers, strict=True):
                digits = (digit for line in document["lines"] for digit in line["digits"])
                responses.add_images(digits, glyphs)
        version = context.readings[0].model_version
        content: schemas.Readings = {
            "model": responses.model_document(requested.name, version, task.labels),
            "readings": documents,
            "request_id": context.request_id,
        }
        return _json_response(content)


class _Models:
    """View that describes a model and names the others."""

    def __init__(
        self, settings: Settings, selector: ModelSelector, model_server: AsyncModelServer, router: Router
    ) -> None:
        self._settings = settings
        self._selector = selector
        self._model_server = model_server
        self._router = router

    def models(self) -> Response:
        name = self._selector.model(request.args).name
        context: RequestContext = g.context
        context.model = name
        try:
            versions = await_(self._model_server.versions(ModelRef(name), timeout=self._settings.deadline))
        except ModelNotFoundError as error:
            raise UnavailableError(error.message) from error
        content: schemas.Models = {
            "name": name,
            "versions": [{"version": status.version, "state": status.state} for status in versions],
            "labels": self._resolve_labels(name),
            "task": self._describe_task(name, context),
            "models": self._settings.models,
            "feedback": bool(self._settings.feedback),
            "request_id": context.request_id,
        }
        return _json_response(content)

    def _resolve_labels(self, name: str) -> dict[str, int]:
        """Return the version of each label that has one. TensorFlow Serving has no call that lists labels."""
        labels = {}
        model = self._settings.by_model[name]
        used = (model.default_label, model.canary_label, model.shadow_label, *self._settings.labels)
        for label in dict.fromkeys(filter(None, used)):
            try:
                labelled = ModelRef(name, label=label)
                labels[label] = await_(self._model_server.resolve(labelled, timeout=self._settings.deadline))
            except ModelNotFoundError:
                continue
        return labels

    def _describe_task(self, name: str, context: RequestContext) -> dict[str, object] | None:
        """Return the task card of the default version, None while there is none."""
        try:
            return self._router.latest_task(default_version(self._settings, name), context).to_document()
        except (ModelNotFoundError, UnavailableError):
            return None


def _json_response(document: Mapping[str, object]) -> Response:
    return Response(orjson.dumps(document), content_type="application/json")
