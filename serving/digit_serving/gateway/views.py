"""Views of /v1: predictions and readings, a result or an error for each picture of a request, and models."""

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from heapq import nlargest
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from flask import Request, Response, g, request
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.task_card import TaskCard
from digit_core.artifact.versions import ArtifactError
from digit_core.errors import ImageError, ModelNotFoundError, UnavailableError
from digit_core.options import Options
from digit_core.recognition import Outcome, Recognition, Steps, drive, to_pixels
from digit_core.results import Models, ModelVersion, Network, Prediction, Reading, add_images, to_json
from digit_core.tfserving.calls import VersionStatus
from digit_core.tfserving.codec import ModelRef
from digit_core.tfserving.connection import ServedVersion
from digit_serving.gateway import schemas
from digit_serving.gateway.batching import MAX_CALL_BYTES
from digit_serving.gateway.door import contained
from digit_serving.gateway.errors import InvalidSelectionError, TooManyImagesError, image_problem
from digit_serving.gateway.parsing import (
    Body,
    BodyParser,
    ModelQuery,
    PredictQuery,
    ReadQuery,
    parse_selection,
    select_model,
)
from digit_serving.gateway.request import RequestContext, Route, json_response, max_answers
from digit_serving.gateway.services import Services
from digit_serving.gateway.upstream import default_version

_Result = TypeVar("_Result", Prediction, Reading)

_BYTE_COST = 6
"""Cost of a byte of a model's input that is compressed to PNG."""
_ZERO_LEVEL = 128
"""Grey level of the weight 0."""
_shortest: Any = np.float32
"""Conversion to the model's float32, of which JSON gets the shortest decimals that read back the same."""


class Views:
    """Views that answer pictures."""

    def __init__(self, services: Services) -> None:
        self._settings = settings = services.settings
        self._max_images, self._max_digits = settings.max_images, settings.max_digits
        self._upstream, self._work, self._features = services.upstream, services.work, services.features
        self._answered = services.observers.answered
        self._parser = BodyParser(settings, services.work)

    def predict(self) -> Response:
        """Answer each picture with its class, or with its refusal."""
        return self._answer("predictions", PredictQuery, Recognition.predict, self._describe_prediction)

    def read(self) -> Response:
        """Answer each picture with its digits."""
        return self._answer("readings", ReadQuery, Recognition.read, _describe_reading)

    def models(self) -> Response:
        """Describe a model and name the others."""
        context: RequestContext = g.context
        _, context.requested = parse_selection(ModelQuery, request, self._settings)
        name = context.requested.name
        statuses = self._upstream.statuses(context, name)
        task = None
        # No version may answer.
        with suppress(ModelNotFoundError, UnavailableError):
            task = self._upstream.card(context, default_version(self._settings, name))
        labels = self._upstream.labels(context, name)
        members: dict[str, Any] = {}
        for feature in self._features:
            with contained(feature):
                members |= feature.model_members(name, task)
        models = Models(
            name,
            tuple(self._describe_version(name, status) for status in statuses),
            version_labels=labels,
            labels=labels,
            task=task,
            models=tuple(dict.fromkeys((*self._settings.models, *self._served_models(), name))),
            max_body=self._settings.max_body,
            request_id=context.request_id,
            **members,
        )
        return json_response(to_json(models))

    def _served_models(self) -> list[str]:
        """Return the names in models.config without the reader's, none if it can't be read."""
        names: set[str] = set()
        file = self._settings.models_config
        if file and "*" in self._settings.model_names:
            with suppress(OSError, ArtifactError):
                names = {*ModelsConfig.parse(file.read_text()).base_paths} - {self._settings.reader}
        return sorted(names)

    def _describe_version(self, name: str, status: VersionStatus) -> ModelVersion:
        network = self._upstream.network(g.context, name, status.version) if status.is_available else None
        described = Network(network.get("name"), network.get("accuracy")) if network else None
        return ModelVersion(status.version, status.state, network=described)

    def _answer(
        self,
        name: str,
        kind: Any,
        recognise: Callable[[Recognition, Any], Steps[_Result]],
        describe: Callable[[_Result, Sequence[NDArray[Any]], TaskCard, Options], Any],
    ) -> Response:
        """Answer with the document of each picture, in their order."""
        context: RequestContext = g.context
        # The object behind the proxy, which looks it up at each access.
        received: Request = request._get_current_object()  # type: ignore[attr-defined]
        # The query first: a body of a request that can't be answered is not parsed.
        options, context.requested = parse_selection(kind, received, self._settings)
        body = self._parser.parse(received, context)
        if body.options:
            options = self._parser.options(kind, received, body, context)
            context.requested = select_model(options, self._settings)
        route = self._upstream.route(context, context.requested)
        if body.instances:
            body = self._parser.to_inputs(body, route.served.card, context)
        if len(body) > (most := max_answers(route.served.card)):
            labels = f"a model of {len(route.served.card.labels):,} labels"
            raise TooManyImagesError(f"A request to {labels} may hold {most} images, not {len(body)}.")
        if options.get("box") and (count := options.parts * len(body)) > self._max_digits:
            raise TooManyImagesError(
                f"A request may have {self._max_digits} parts of images; this request has {count}."
            )
        if options.get("box") and isinstance(body.content, np.ndarray):
            raise InvalidSelectionError("Parameter `box` needs image files.")
        if "layers" in options["include"] and len(body) > 1:
            # Each picture's layers are a call of its own, outside the batches.
            reason = f"`layers` needs a request with one image; this request has {len(body)}"
            raise InvalidSelectionError(f"Parameter `include`: {reason}.")
        context.options = options
        documents, served = self._recognise(context, route, body, options, recognise, describe)
        model: schemas.Model = {
            "name": served.model.name,
            "version": served.version if context.model_version is None else context.model_version,
            "labels": served.card.labels,
        }
        return json_response({"model": model, name: documents, "request_id": context.request_id})

    def _recognise(
        self,
        context: RequestContext,
        route: Route,
        body: Body,
        options: Options,
        recognise: Callable[[Recognition, Any], Steps[_Result]],
        describe: Callable[[_Result, Sequence[NDArray[Any]], TaskCard, Options], Any],
    ) -> tuple[list[Any], ServedVersion]:
        """Return the document of each picture, which is prepared by the route's card, and what answered."""
        card = route.served.card
        limit = min(self._max_images, max(1, MAX_CALL_BYTES // math.prod(card.shape)))
        ask = self._upstream.asking(context, route)
        recognition = Recognition(card, limit, options, self._max_digits)
        outcomes = drive(recognise(recognition, body.content), ask, partial(self._work.answer, context))
        if options.get("box"):
            # A result for each part, in the place of a picture.
            parts = [picture for picture in body.content for _ in options["box"]]
            body = replace(body, content=parts, is_image=body.is_image and len(parts) == 1)
        documents: list[Any] = []
        results: dict[int, Prediction | Reading] = {}
        for index, outcome in enumerate(_with_errors(outcomes, body) if body.errors else outcomes):
            result: Any = outcome.result
            if isinstance(result, (ImageError, OSError)):
                documents.append(_describe_failure(context, body, result))
                continue
            card = ask.route.served.card
            # Layers are a call, and few values; calls belong to the event loop.
            has_images = "image" in options["include"] and "layers" not in options["include"]
            cost = _BYTE_COST * sum(each.size for each in outcome.inputs) if has_images else 0
            documents.append(self._work.run(context, cost, describe, result, outcome.inputs, card, options))
            results[index] = result
        context.results = [*results.values()]
        for watch in self._answered:
            watch(context, route, body, results)
        return documents, ask.route.served

    def _describe_prediction(
        self, prediction: Prediction, inputs: Sequence[NDArray[Any]], task: TaskCard, options: Options
    ) -> dict[str, Any]:
        document = to_json(prediction, of_call=False, numbers=_shortest)
        if options["top"] is not None:
            del document["probabilities"]
            ranked = nlargest(options["top"], enumerate(prediction.probabilities), key=itemgetter(1))
            document["top"] = [
                {"label": prediction.labels[index], "index": index, "probability": probability}
                for index, probability in ranked
            ]
        if "labels" in options["include"]:
            document["labels"] = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        if "image" in options["include"]:
            document["image"] = _png(to_pixels(inputs[0], task))
        if "layers" in options["include"]:
            version = ModelRef(g.context.requested.name, prediction.model_version)
            layers = self._upstream.layers(g.context, version, to_pixels(inputs[0], task))
            document["layers"] = [_describe_layer(*layer) for layer in layers]
        return document


def _with_errors(outcomes: Iterator[Outcome[_Result]], body: Body) -> Iterator[Outcome[_Result]]:
    """Yield the outcomes, with the errors of instances in their places."""
    for index in range(len(body)):
        yield Outcome(body.errors[index]) if index in body.errors else next(outcomes)


def _describe_failure(
    context: RequestContext, body: Body, error: ImageError | OSError
) -> schemas.ImageFailure:
    """Return the document of a picture that can't be used. Raise the error if the picture is the body."""
    assert isinstance(error, ImageError)
    if body.is_image:
        raise error
    context.image_errors.append(error.code)
    return {"error": image_problem(error, context.request_id)}


def _describe_reading(
    reading: Reading, inputs: Sequence[NDArray[Any]], task: TaskCard, options: Options
) -> dict[str, Any]:
    files = [images.to_png(to_pixels(glyph, task)) for glyph in inputs if "image" in options["include"]]
    return to_json(add_images(reading, files), of_call=False, numbers=_shortest)


def _describe_layer(
    name: str, values: NDArray[np.float32], weights: NDArray[np.float32] | None
) -> schemas.Layer:
    """Return the document of a layer: activations float32 [h, w, maps] or [units], weights [h, w, units]."""
    maps = np.atleast_3d(values) if values.ndim > 1 else values.reshape(1, 1, -1)
    peak = float(maps.max())
    image = _png(_side_by_side(maps.clip(0) * (255 / max(peak, 1e-9)), 0))
    layer: schemas.Layer = {"name": name, "shape": values.shape, "peak": peak, "image": image}
    if weights is not None:
        levels = _ZERO_LEVEL + weights * (127 / max(float(np.abs(weights).max()), 1e-9))
        layer["weights"] = _png(_side_by_side(levels, _ZERO_LEVEL))
    return layer


def _side_by_side(maps: NDArray[np.floating], background: int) -> images.Pixels:
    """Return maps [h, w, k] as one picture: rows of up to 8, a pixel apart; of up to 16 single pixels."""
    height, width, count = maps.shape
    gap = 1 if height * width > 1 else 0
    columns = max(number for number in range(1, 9 if gap else 17) if count % number == 0)
    spaced = ((0, gap), (0, gap), (0, 0))
    framed = np.pad(maps.astype(np.uint8), spaced, constant_values=background).transpose(2, 0, 1)
    rows = framed.reshape(-1, columns, height + gap, width + gap).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(rows.reshape(-1, columns * (width + gap)))


def _png(pixels: images.Pixels) -> str:
    """Return a PNG file in base64."""
    return base64.b64encode(images.to_png(pixels)).decode()
