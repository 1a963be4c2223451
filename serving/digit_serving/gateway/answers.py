"""Answers: the views of /v1/predict and /v1/read, a result or an error for each picture of a request."""

import base64
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import nlargest
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import orjson
from flask import Request, Response, g, request
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import TaskCard
from digit_core.errors import ImageError, TooManyDigitsError
from digit_core.recognition import Outcome, Recognition, to_pixels
from digit_core.results import Digit, Line, Prediction, Reading
from digit_serving.gateway import schemas
from digit_serving.gateway.batching import MAX_CALL_BYTES
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.errors import image_problem
from digit_serving.gateway.preparation import Preparation, Scheduler
from digit_serving.gateway.request_parsing import (
    Body,
    ModelSelector,
    Pictures,
    PredictQuery,
    ReadQuery,
    RequestParser,
    VersionQuery,
    parse_query,
)
from digit_serving.gateway.routing import Router

if TYPE_CHECKING:
    from digit_serving.gateway.app import Services

_Result = TypeVar("_Result", Prediction, Reading)
_Document = TypeVar("_Document")


@dataclass(frozen=True, slots=True)
class Answer(Generic[_Result]):
    """Result of the picture at `index` of its request, with the model's inputs that showed it.

    The inputs are None if nobody keeps them, or all those of the request might not fit into memory.
    """

    index: int
    result: _Result
    inputs: Sequence[NDArray[Any]] | None


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
        query = parse_query(PredictQuery, request.args)
        asked = self._begin(query)

        def describe(prediction: Prediction, inputs: Sequence[NDArray[Any]]) -> schemas.Prediction:
            document = _prediction_document(prediction, query)
            if "image" in query.include:
                document["image"] = _image(inputs[0], asked.task)
            return document

        answers, documents = self._collect(asked, asked.outcomes(asked.recognition.predict), describe)
        asked.context.predictions = [answer.result for answer in answers]
        self._keep_and_compare(asked, answers)
        content: schemas.Predictions = {
            "model": self._model(asked),
            "predictions": documents,
            "request_id": asked.context.request_id,
        }
        return _encode(content)

    def read(self) -> Response:
        """Answer each picture with its digits."""
        query = parse_query(ReadQuery, request.args)
        asked = self._begin(query)

        def describe(reading: Reading, inputs: Sequence[NDArray[Any]]) -> schemas.Reading:
            shown = [_image(glyph, asked.task) for glyph in inputs] if query.include else []
            return _reading_document(reading, iter(shown))

        outcomes = map(self._limit_digits, asked.outcomes(asked.recognition.read))
        answers, documents = self._collect(asked, outcomes, describe)
        asked.context.readings = [answer.result for answer in answers]
        self._keep_and_compare(asked, answers)
        content: schemas.Readings = {
            "model": self._model(asked),
            "readings": documents,
            "request_id": asked.context.request_id,
        }
        return _encode(content)

    def _collect(
        self,
        asked: "_Request",
        outcomes: Iterable[Outcome[_Result]],
        describe: Callable[[_Result, Sequence[NDArray[Any]]], _Document],
    ) -> tuple[list[Answer[_Result]], list[_Document | schemas.ImageFailure]]:
        """Return the answers, and a document for each outcome."""
        answers: list[Answer[_Result]] = []
        documents: list[_Document | schemas.ImageFailure] = []
        keeps_inputs, size = bool(self._keeper or self._shadow), 0
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome.result, Exception):
                documents.append(asked.failure(outcome.result))
                continue
            documents.append(describe(outcome.result, outcome.inputs))
            size += sum(row.nbytes for row in outcome.inputs) if keeps_inputs else 0
            is_kept = keeps_inputs and size <= MAX_CALL_BYTES
            answers.append(Answer(index, outcome.result, outcome.inputs if is_kept else None))
        return answers, documents

    def _keep_and_compare(self, asked: "_Request", answers: Sequence[Answer[_Result]]) -> None:
        context = asked.context
        if self._keeper and answers and self._keeps(asked):
            self._keeper.keep(context, answers, asked.task, asked.body)
        if self._shadow and answers:
            self._shadow.compare(context, answers, asked.recognition.min_is_digit)

    def _begin(self, query: VersionQuery) -> "_Request":
        """Parse the request, and return it with the recognition that answers it."""
        context: RequestContext = g.context
        context.requested = self._selector.version(query)
        # The object behind the proxy, which looks it up at each access.
        received: Request = request._get_current_object()  # type: ignore[attr-defined]
        body = self._parser.parse(received, context)
        task = self._router.task(context)
        preparation = Preparation(self._scheduler, self._settings.max_pixels, context)
        recognition = Recognition(
            partial(self._router.predict, context=context),
            task,
            query.min_is_digit,
            partial(self._router.find, context=context),
            preparation.prepare,
            preparation.page,
            min(self._settings.max_images, max(1, MAX_CALL_BYTES // math.prod(task.shape))),
        )
        return _Request(context, body, task, self._parser.pictures(body, task, context), recognition)

    def _keeps(self, asked: "_Request") -> bool:
        """True if answers of the model may get feedback, which is one label for each input."""
        return self._settings.for_model(asked.context.model).feedback and not asked.task.is_multi_label

    def _limit_digits(self, outcome: Outcome[Reading]) -> Outcome[Reading]:
        limit = self._settings.max_digits
        if isinstance(outcome.result, Reading) and (count := len(outcome.result.digits)) > limit:
            return Outcome(TooManyDigitsError(f"the image shows {count} digits; at most {limit} are read"))
        return outcome

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


def _prediction_document(prediction: Prediction, query: PredictQuery) -> schemas.Prediction:
    """Return the document of a prediction, without its image."""
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
    if query.top is None:
        document["probabilities"] = _shortest(prediction.probabilities)
    else:
        ranked = nlargest(query.top, enumerate(prediction.probabilities), key=itemgetter(1))
        document["top"] = [
            {"label": prediction.labels[index], "index": index, "probability": probability}
            for index, probability in ranked
        ]
    if "labels" in query.include:
        document["labels"] = dict(zip(prediction.labels, prediction.probabilities, strict=True))
    return document


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
