"""Answers: the views of /v1/predict and /v1/read, a result or an error for each picture of a request."""

import base64
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import orjson
from flask import Request, Response, g, request
from numpy.typing import NDArray

from digit_client import Digit, ImageError, Line, Prediction, Reading, TaskCard, TooManyDigitsError, images
from digit_client._recognition import Outcome, Recognition, to_pixels
from digit_serving.gateway import schemas
from digit_serving.gateway.batching import MAX_CALL_BYTES
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import image_problem
from digit_serving.gateway.preparation import Preparation, Scheduler
from digit_serving.gateway.request_parsing import (
    PREDICT_PARAMETERS,
    READ_PARAMETERS,
    Body,
    ModelSelector,
    Pictures,
    Query,
    RequestParser,
    check_names,
    parse_include,
    parse_min_is_digit,
    parse_top,
)
from digit_serving.gateway.routing import Router

if TYPE_CHECKING:
    from digit_serving.gateway.app import Services

_Result = TypeVar("_Result", Prediction, Reading)


@dataclass(frozen=True, slots=True)
class Answer(Generic[_Result]):
    """Result of the picture at `index` of its request, with the model's inputs that showed it, if kept."""

    index: int
    result: _Result
    inputs: Sequence[NDArray[Any]]


class AnswerViews:
    """Views that answer pictures, and have the answers kept for feedback and compared, if anybody does so."""

    def __init__(self, services: "Services", selector: ModelSelector, router: Router) -> None:
        self._settings = services.settings
        self._selector = selector
        self._router = router
        self._keeper = services.keeper
        self._shadow = services.shadow
        self._scheduler = Scheduler(self._settings)
        self._parser = RequestParser(self._settings, self._scheduler)

    def predict(self) -> Response:
        """Answer each picture with its class, or with its refusal."""
        query = request.args.to_dict()
        check_names(query, PREDICT_PARAMETERS)
        include, top = parse_include(query, ("image", "labels")), parse_top(query)
        asked = self._begin(query)
        answers: list[Answer[Prediction]] = []
        keeps_inputs, size = bool(self._keeper or self._shadow), 0
        documents: list[schemas.Prediction | schemas.ImageFailure] = []
        for index, outcome in enumerate(asked.outcomes(asked.recognition.predict)):
            result = outcome.result
            if isinstance(result, Exception):
                documents.append(asked.failure(result))
                continue
            document = _prediction_document(result, include, top)
            if "image" in include:
                document["image"] = _image(outcome.inputs[0], asked.task)
            documents.append(document)
            size += outcome.inputs[0].nbytes
            # All inputs might not fit into memory.
            is_kept = keeps_inputs and size <= MAX_CALL_BYTES
            answers.append(Answer(index, result, outcome.inputs if is_kept else ()))
        context = asked.context
        context.predictions = [answer.result for answer in answers]
        if self._keeper and answers and self._keeps(asked):
            self._keeper.keep_predictions(context, answers, asked.task, asked.body)
        if self._shadow and answers:
            self._shadow.compare_predictions(context, answers, asked.recognition.min_is_digit)
        content: schemas.Predictions = {
            "model": self._model(asked),
            "predictions": documents,
            "request_id": context.request_id,
        }
        return _encode(content)

    def read(self) -> Response:
        """Answer each picture with its digits."""
        query = request.args.to_dict()
        check_names(query, READ_PARAMETERS)
        include = parse_include(query, ("image",))
        asked = self._begin(query)
        answers: list[Answer[Reading]] = []
        documents: list[schemas.Reading | schemas.ImageFailure] = []
        for index, outcome in enumerate(asked.outcomes(asked.recognition.read)):
            result = self._limit_digits(outcome.result)
            if isinstance(result, Exception):
                documents.append(asked.failure(result))
                continue
            shown = [_image(glyph, asked.task) for glyph in outcome.inputs] if "image" in include else []
            documents.append(_reading_document(result, iter(shown)))
            answers.append(Answer(index, result, outcome.inputs))
        context = asked.context
        context.readings = [answer.result for answer in answers]
        if self._keeper and answers and self._keeps(asked):
            self._keeper.keep_readings(context, answers, asked.task, asked.body)
        if self._shadow and answers:
            self._shadow.compare_readings(context, answers)
        content: schemas.Readings = {
            "model": self._model(asked),
            "readings": documents,
            "request_id": context.request_id,
        }
        return _encode(content)

    def _begin(self, query: Query) -> "_Request":
        """Parse the request, and return it with the recognition that answers it."""
        context: RequestContext = g.context
        context.requested = self._selector.version(query)
        min_is_digit = parse_min_is_digit(query)
        # The object behind the proxy, which looks it up at each access.
        received: Request = request._get_current_object()  # type: ignore[attr-defined]
        body = self._parser.parse(received, context)
        task = self._router.task(context)
        preparation = Preparation(self._scheduler, self._settings.max_pixels, context)
        recognition = Recognition(
            partial(self._router.predict, context=context),
            task,
            min_is_digit,
            partial(self._router.find, context=context),
            preparation.prepare,
            preparation.page,
            min(self._settings.max_images, max(1, MAX_CALL_BYTES // math.prod(task.shape))),
        )
        return _Request(context, body, task, self._parser.pictures(body, task, context), recognition)

    def _keeps(self, asked: "_Request") -> bool:
        """True if answers of the model may get feedback, which is one label for each input."""
        return self._settings.for_model(asked.context.model).feedback and not asked.task.is_multi_label

    def _limit_digits(self, result: Reading | ImageError | OSError) -> Reading | ImageError | OSError:
        limit = self._settings.max_digits
        if isinstance(result, Reading) and (count := len(result.digits)) > limit:
            return TooManyDigitsError(f"the image shows {count} digits; at most {limit} are read")
        return result

    def _model(self, asked: "_Request") -> schemas.Model:
        """Return the model that answered, or would have, had a picture been one."""
        version = self._router.version(asked.context)
        return {"name": asked.context.model, "version": version, "labels": asked.task.labels}


@dataclass(frozen=True, slots=True)
class _Request:
    """One request for answers: its pictures, and the recognition that answers them."""

    context: RequestContext
    body: Body
    task: TaskCard
    pictures: Pictures
    recognition: Recognition

    def outcomes(self, recognise: Callable[[Any], Iterator[Outcome[_Result]]]) -> Iterator[Outcome[_Result]]:
        """Yield the outcome of each picture, in order, with errors of the parser in their places."""
        errors = self.pictures.errors
        recognised = recognise(self.pictures.content)
        for index in range(len(self.pictures.content) + len(errors)):
            yield Outcome(errors[index]) if index in errors else next(recognised)

    def failure(self, error: ImageError | OSError) -> schemas.ImageFailure:
        """Return the document of a picture that can't be used. Raise the error if the picture is the body."""
        assert isinstance(error, ImageError)
        if self.body.is_image:
            raise error
        self.context.image_errors.append(error.code)
        return {"error": image_problem(error, self.context.request_id)}


def _prediction_document(
    prediction: Prediction, include: Collection[str], top: int | None
) -> schemas.Prediction:
    """Return the document of a prediction, without its image.

    `labels` in `include` adds the probability of each label; `top` replaces the probabilities of all classes
    by this number of the most probable ones.
    """
    document: schemas.Prediction = {
        "label": prediction.label,
        "index": prediction.index,
        "confidence": prediction.confidence,
        "refusal": prediction.refusal,
    }
    if prediction.has_digit_labels:
        document["digit"] = prediction.digit
    if prediction.is_digit is not None:
        document["is_digit"] = prediction.is_digit
    if prediction.count is not None:
        document["count"] = prediction.count
    if prediction.predicted_labels is not None:
        document["predicted_labels"] = prediction.predicted_labels
    if top is None:
        document["probabilities"] = _shortest(prediction.probabilities)
    else:
        document["top"] = _most_probable(prediction, top)
    if "labels" in include:
        document["labels"] = dict(zip(prediction.labels, prediction.probabilities, strict=True))
    return document


def _most_probable(prediction: Prediction, count: int) -> list[schemas.RankedClass]:
    ranked = nlargest(count, enumerate(prediction.probabilities), key=lambda pair: pair[1])
    return [
        {"label": prediction.labels[index], "index": index, "probability": probability}
        for index, probability in ranked
    ]


def _reading_document(reading: Reading, shown: Iterator[str]) -> schemas.Reading:
    """Return the document of a reading; `shown` has the image of each digit, or none."""
    lines = [_line(line, shown) for line in reading.lines]
    return {"text": reading.text, "lines": lines, "refusal": reading.refusal}


def _line(line: Line, shown: Iterator[str]) -> schemas.Line:
    digits = [_digit(digit, shown) for digit in line.digits]
    return {"text": line.text, "box": line.box, "digits": digits, "separators": line.separators}


def _digit(digit: Digit, shown: Iterator[str]) -> schemas.Digit:
    document: schemas.Digit = {
        "digit": digit.digit,
        "confidence": digit.confidence,
        "probabilities": _shortest(digit.probabilities),
        "box": digit.box,
    }
    if image := next(shown, None):
        document["image"] = image
    return document


def _shortest(probabilities: Sequence[float]) -> Any:
    """Return the model's float32 numbers as such: JSON gets the shortest decimals that read back the same."""
    return np.array(probabilities, np.float32)


def _encode(content: schemas.Predictions | schemas.Readings) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), content_type="application/json")


def _image(row: NDArray[Any], task: TaskCard) -> str:
    """Return the model's input as a PNG file in base64."""
    return base64.b64encode(images.to_png(to_pixels(row, task))).decode()
