"""Recognition: the digit on each picture of a request, or all of its digits."""

import time
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from digit_client import Prediction, Reading, TooManyDigitsError, images
from digit_client.images import Candidates
from digit_client.tfserving.codec import Batch, ModelRef
from digit_serving.gateway.context import RequestContext
from digit_serving.gateway.image_processing import ImageProcessor, errors_at, segmentation_timer
from digit_serving.gateway.request_parsing import Pictures
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings


class Recognizer:
    """Answers the pictures of a request; one version of the model answers all calls of a request."""

    def __init__(self, settings: Settings, processor: ImageProcessor, router: Router) -> None:
        self._max_candidates = settings.max_images
        self._max_digits = settings.max_digits
        self._processor = processor
        self._router = router

    def predict(
        self, pictures: Pictures, requested: ModelRef | None, context: RequestContext
    ) -> tuple[list[Prediction], Batch]:
        """Return the only digit on each picture, and the model's input that showed it.

        Cascade: normalisation finds the digit on most pictures. The rest, where it finds none or the model
        refuses what it finds, is segmented into candidates for a second call. Arrays in the model's form are
        never refused. Raise NoDigitError, SeveralDigitsError or another ImageError with the picture's index,
        and what Router.predict raises.
        """
        model_input = self._processor.normalise(pictures, context)
        batch, missing = model_input.batch, model_input.missing
        found = np.delete(batch, missing, axis=0) if missing else batch
        predictions: list[Prediction | None] = []
        if len(found):
            predictions += self._router.predict(found, requested, context)
        for index in missing:
            predictions.insert(index, None)
        refused = [index for index in model_input.normalised if not _is_accepted(predictions[index])]
        for index, candidates, answers in self._classify(pictures, refused, requested, context):
            with errors_at(index), segmentation_timer(context):
                predictions[index] = digit = images.single_digit(candidates, answers)
            batch[index] = candidates.glyphs[answers.index(digit)]
        return [prediction for prediction in predictions if prediction], batch

    def read(
        self, pictures: Pictures, requested: ModelRef | None, context: RequestContext
    ) -> Iterator[tuple[Reading, list[NDArray[np.uint8]]]]:
        """Yield the digits on each picture, and the model's input of each, uint8 [28, 28].

        Raise NoDigitError, TooManyDigitsError or another ImageError with the picture's index, and what
        Router.predict raises.
        """
        context.read_started_at = time.perf_counter()
        indexes = range(len(pictures))
        for index, candidates, predictions in self._classify(pictures, indexes, requested, context):
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
        requested: ModelRef | None,
        context: RequestContext,
    ) -> Iterator[tuple[int, Candidates, list[Prediction]]]:
        """Yield each index with the picture's candidates and their predictions.

        Pictures share a call as long as it holds at most `max_images` candidates: TensorFlow Serving refuses
        larger ones, and the first refused picture spares the work on those of later calls.
        """
        group: list[tuple[int, Candidates]] = []
        count = 0
        for index in indexes:
            candidates = self._processor.segment(pictures, index, context)
            if group and count + len(candidates.glyphs) > self._max_candidates:
                yield from self._predict_group(group, requested, context)
                group, count = [], 0
            group.append((index, candidates))
            count += len(candidates.glyphs)
        if group:
            yield from self._predict_group(group, requested, context)

    def _predict_group(
        self, group: list[tuple[int, Candidates]], requested: ModelRef | None, context: RequestContext
    ) -> Iterator[tuple[int, Candidates, list[Prediction]]]:
        glyphs = np.concatenate([candidates.glyphs for _, candidates in group])
        predictions: list[Prediction] = []
        # A picture alone may have more candidates than a call holds.
        for start in range(0, len(glyphs), self._max_candidates):
            part = glyphs[start : start + self._max_candidates]
            predictions += self._router.predict(part, requested, context)
        end = 0
        for index, candidates in group:
            start, end = end, end + len(candidates.glyphs)
            yield index, candidates, predictions[start:end]


def _is_accepted(prediction: Prediction | None) -> bool:
    return prediction is not None and prediction.is_accepted
