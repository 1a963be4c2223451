"""Recognition: the class of each picture of a request, or all of its digits."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_client import (
    ImageError,
    Prediction,
    Reading,
    ReadingNotSupportedError,
    ServiceError,
    TaskCard,
    TooManyDigitsError,
    images,
)
from digit_client.images import Candidates
from digit_client.tfserving.codec import Batch, ModelRef
from digit_client.tfserving.tasks import with_current_task
from digit_serving.gateway.batching import MAX_CALL_BYTES
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.image_processing import ImageProcessor, errors_at, segmentation_timer
from digit_serving.gateway.request_parsing import Body, Pictures, RequestParser
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings

_Result = TypeVar("_Result")


class Recognizer:
    """Answers the pictures of a request; one version of the model answers all calls of a request."""

    def __init__(
        self, settings: Settings, parser: RequestParser, processor: ImageProcessor, router: Router
    ) -> None:
        self._max_candidates = settings.max_images
        self._max_digits = settings.max_digits
        self._parser = parser
        self._processor = processor
        self._router = router

    def predict(
        self, body: Body, requested: ModelRef, context: RequestContext
    ) -> tuple[list[Prediction], Iterable[Batch], TaskCard]:
        """Return the class of each picture, the model's inputs that showed them, in batches, and the task.

        Raise an ImageError with the picture's index, what RequestParser.pictures raises, and what
        Router.predict raises.
        """

        def predict(task: TaskCard) -> tuple[list[Prediction], Iterable[Batch], TaskCard]:
            pictures = self._parser.pictures(body, task, context)
            if task.reads_numbers:
                predictions, batch = self._predict_digits(pictures, task, requested, context)
                return predictions, [batch], task
            # One batch after the other is prepared and sent: the pixels of all might not fit into memory.
            batches = partial(self._prepare_batches, pictures, task, context)
            predictions = []
            for batch in batches():
                predictions += self._router.predict(batch, requested, context)
            # A lone batch is kept, several are prepared anew if the answer includes them.
            return predictions, [batch] if len(batch) == len(predictions) else batches(), task

        return self._with_task(predict, requested, context)

    def read(
        self, body: Body, requested: ModelRef, context: RequestContext
    ) -> tuple[list[tuple[Reading, list[NDArray[np.uint8]]]], TaskCard]:
        """Return the digits on each picture with the model's input of each, uint8 [h, w], and the task.

        Raise ReadingNotSupportedError if the model's classes are not the ten digits; NoDigitError,
        TooManyDigitsError or another ImageError with the picture's index; and what RequestParser.pictures
        and Router.predict raise.
        """

        def read(task: TaskCard) -> tuple[list[tuple[Reading, list[NDArray[np.uint8]]]], TaskCard]:
            if not task.reads_numbers:
                raise ReadingNotSupportedError(f"{requested} classifies {task.name}; it reads no numbers")
            pictures = self._parser.pictures(body, task, context)
            return list(self._read(pictures, task, requested, context)), task

        return self._with_task(read, requested, context)

    def _with_task(
        self, run: Callable[[TaskCard], _Result], requested: ModelRef, context: RequestContext
    ) -> _Result:
        return with_current_task(
            lambda: self._router.task(requested, context),
            lambda: self._router.latest_task(requested, context),
            run,
        )

    def _prepare_batches(
        self, pictures: Pictures, task: TaskCard, context: RequestContext
    ) -> Iterator[Batch]:
        """Yield the pictures in the model's form, in batches of at most MAX_CALL_BYTES."""
        size = max(1, MAX_CALL_BYTES // math.prod(task.shape))
        for start in range(0, len(pictures), size):
            try:
                yield self._processor.prepare(pictures[start : start + size], task, context).batch
            except ImageError as error:
                error.index = start + (error.index or 0)
                raise

    def _predict_digits(
        self, pictures: Pictures, task: TaskCard, requested: ModelRef, context: RequestContext
    ) -> tuple[list[Prediction], Batch]:
        """Return the only digit on each picture, and the model's input that showed it.

        Cascade: normalisation finds the digit on most pictures. The rest, where it finds none or the model
        refuses what it finds, is segmented into candidates for a second call. Arrays in the model's form are
        never refused. Raise NoDigitError or SeveralDigitsError with the picture's index.
        """
        model_input = self._processor.prepare(pictures, task, context)
        batch, missing = model_input.batch, model_input.missing
        found = np.delete(batch, missing, axis=0) if missing else batch
        predictions: list[Prediction | None] = []
        if len(found):
            predictions += self._predict_glyphs(found, task, requested, context)
        for index in missing:
            predictions.insert(index, None)
        refused = [index for index in model_input.prepared if not _is_accepted(predictions[index])]
        for index, candidates, answers in self._classify(pictures, refused, task, requested, context):
            with errors_at(index), segmentation_timer(context):
                predictions[index] = digit = images.single_digit(candidates, answers)
            batch[index] = candidates.glyphs[answers.index(digit)]
        return [prediction for prediction in predictions if prediction], batch

    def _read(
        self, pictures: Pictures, task: TaskCard, requested: ModelRef, context: RequestContext
    ) -> Iterator[tuple[Reading, list[NDArray[np.uint8]]]]:
        context.read_started_at = time.perf_counter()
        indexes = range(len(pictures))
        for index, candidates, predictions in self._classify(pictures, indexes, task, requested, context):
            with errors_at(index), segmentation_timer(context):
                reading = images.read(candidates, predictions)
                count = len(reading.digits)
                if count > self._max_digits:
                    raise TooManyDigitsError(
                        f"the image shows {count} digits; at most {self._max_digits} are read"
                    )
            yield reading, images.glyphs(reading, candidates, predictions)

    def _classify(
        self,
        pictures: Pictures,
        indexes: Iterable[int],
        task: TaskCard,
        requested: ModelRef,
        context: RequestContext,
    ) -> Iterator[tuple[int, Candidates, list[Prediction]]]:
        """Yield each index with the picture's candidates and their predictions.

        Pictures share a call as long as it holds at most `max_images` candidates: TensorFlow Serving refuses
        larger ones, and the first refused picture spares the work on those of later calls.
        """
        group: list[tuple[int, Candidates]] = []
        count = 0
        for index in indexes:
            candidates = self._processor.segment(pictures, index, task, context)
            if group and count + len(candidates.glyphs) > self._max_candidates:
                yield from self._predict_group(group, task, requested, context)
                group, count = [], 0
            group.append((index, candidates))
            count += len(candidates.glyphs)
        if group:
            yield from self._predict_group(group, task, requested, context)

    def _predict_group(
        self,
        group: list[tuple[int, Candidates]],
        task: TaskCard,
        requested: ModelRef,
        context: RequestContext,
    ) -> Iterator[tuple[int, Candidates, list[Prediction]]]:
        glyphs = np.concatenate([candidates.glyphs for _, candidates in group])
        predictions: list[Prediction] = []
        # A picture alone may have more candidates than a call holds.
        for start in range(0, len(glyphs), self._max_candidates):
            part = glyphs[start : start + self._max_candidates]
            predictions += self._predict_glyphs(part, task, requested, context)
        end = 0
        for index, candidates in group:
            start, end = end, end + len(candidates.glyphs)
            yield index, candidates, predictions[start:end]

    def _predict_glyphs(
        self, glyphs: Batch, task: TaskCard, requested: ModelRef, context: RequestContext
    ) -> list[Prediction]:
        predictions = self._router.predict(glyphs, requested, context)
        if predictions[0].labels != task.labels:
            # Stop the cascade, which understands digits only; the request runs again with the new task.
            raise ServiceError("a version of another task has answered")
        return predictions


def _is_accepted(prediction: Prediction | None) -> bool:
    return prediction is not None and prediction.is_accepted
