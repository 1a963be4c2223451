"""Recognition: the one way from pictures to results, given a function that asks the model.

    recognition = Recognition(classify, task)
    for outcome in recognition.predict([b"…", pixels]):
        print(outcome.result)

Synchronous, and pure but for `classify`. Each use of a picture decodes it anew, and outcomes are yielded
group by group: the pixels of all might not fit into memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_client import images
from digit_client._exceptions import (
    ImageError,
    ReaderMissingError,
    ReadingNotSupportedError,
    without_tracebacks,
)
from digit_client._inputs import ImageSource, Pixels, read_source
from digit_client._types import MIN_IS_DIGIT, Prediction, Reading, Refusal
from digit_client.artifact.task_card import TaskCard
from digit_client.images import MAX_PIXELS, Detected, NoInkError, Page, Peaks
from digit_client.tfserving.codec import Batch

MAX_BATCH = 256
"""Largest number of pictures in a call: TensorFlow Serving's batching refuses larger ones."""
_GROUP_BYTES = 8 * 1024 * 1024
"""Bytes of the prepared pictures of a group; gRPC buffers 16 MiB for a retry."""

PictureError: TypeAlias = ImageError | OSError
"""Error of one picture: it can't be read, decoded or taken by the model."""
Pictures: TypeAlias = "Sequence[ImageSource | PictureError] | Batch"
"""Pictures, errors of pictures that could not be read, or an array: uint8 [n, *shape] or float32
[n, *instance_shape] is in the model's form, any other array holds one picture an item."""

_Result = TypeVar("_Result", Prediction, Reading, covariant=True)
_Step = TypeVar("_Step")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_Result]):
    """Result for a picture, or the error in its place.

    `inputs` are the model's inputs that showed the result, in the model's form: one of a prediction, black if
    nothing is written on the picture; one for each digit of a reading; none of an error.
    """

    result: _Result | PictureError
    inputs: Sequence[NDArray[Any]] = ()


def prepare_picture(picture: ImageSource, task: TaskCard, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the picture in the model's form: uint8 of the task's shape.

    Raise NoInkError if the task is digits and nothing is written on the picture, ImageError or OSError for a
    picture that can't be taken.
    """
    if isinstance(picture, np.ndarray):
        return images.prepare(picture, task)
    return images.prepare(images.decode_for_task(read_source(picture), task, max_pixels=max_pixels), task)


def page_of_picture(picture: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Page:
    """Return the grey page of the picture, which the reader takes. Raise ImageError or OSError."""
    if isinstance(picture, np.ndarray):
        return images.to_page(images.to_uint8_image(picture))
    data = read_source(picture)
    pixels = images.decode(data, max_pixels=max_pixels, side=images.PAGE_SIDE)
    return images.to_page(pixels, images.original_size(data))


def to_pixels(row: NDArray[Any], task: TaskCard) -> Pixels:
    """Return an array in the model's form, uint8 or float32 in the task's range, as uint8 of its shape."""
    if row.dtype == np.uint8:
        return row
    low, high = task.range
    return images.to_uint8((row.astype(np.float32) - low).reshape(task.shape) * (255 / (high - low)))


def without_reader(page: NDArray[np.uint8]) -> Peaks:  # noqa: ARG001
    """Raise ReaderMissingError: there is no reader."""
    raise ReaderMissingError("there is no reader, which finds digits on a page")


@dataclass(frozen=True, slots=True)
class Recognition:
    """Recognition of pictures by one model, with the help of a reader.

    `classify` returns the predictions for a batch in the model's form, at most `max_batch` rows, in order;
    `find` returns the reader's peaks on a grey page, uint8 [h, w], and raises ReaderMissingError without a
    reader. Their errors end the iteration. `min_is_digit` is the least `is_digit` of a digit. `prepare` and
    `page` are the steps that take long; a caller may run them in threads.
    """

    classify: Callable[[Batch], Sequence[Prediction]]
    task: TaskCard
    min_is_digit: float = MIN_IS_DIGIT
    find: Callable[[NDArray[np.uint8]], Peaks] = without_reader
    prepare: Callable[[ImageSource, TaskCard], Pixels] = prepare_picture
    page: Callable[[ImageSource], Page] = page_of_picture
    max_batch: int = MAX_BATCH

    def predict(self, pictures: Pictures) -> Iterator[Outcome[Prediction]]:
        """Yield the class of each picture, in order, or its refusal or error.

        Cascade for digits: the model decides on the normalised picture. Where it refuses that, or nothing is
        written at first sight, the reader looks for digits, if there is one.
        """
        size = max(1, min(self.max_batch, _GROUP_BYTES // math.prod(self.task.shape)))
        for start in range(0, len(pictures), size):
            indexes = range(start, min(start + size, len(pictures)))
            outcomes = self._predict_prepared(pictures, indexes)
            if self.task.reads_numbers:
                self._decide_refused(outcomes, pictures, start)
            yield from outcomes

    def read(self, pictures: Pictures) -> Iterator[Outcome[Reading]]:
        """Yield the digits on each picture, in order, or its error.

        The iteration raises ReadingNotSupportedError if the model's classes are not the ten digits, and
        ReaderMissingError.
        """
        if not self.task.reads_numbers:
            raise ReadingNotSupportedError(f"the model classifies {self.task.name}; it reads no numbers")
        for _, found, answers in self._classify_detected(pictures, range(len(pictures))):
            if isinstance(found, Detected):
                reading, inputs = images.read(found, answers, self.min_is_digit)
                yield Outcome(reading, inputs)
            else:
                yield Outcome(found)

    def _predict_prepared(self, pictures: Pictures, indexes: range) -> list[Outcome[Prediction]]:
        """Return the model's answer on each prepared picture; black stands for one without ink."""
        rows = self._prepare(pictures, indexes)
        black = np.zeros(self.task.shape, np.uint8)
        inputs = [black if row is None else row for row in rows if not isinstance(row, Exception)]
        answers = iter(self._classify(inputs))
        outcomes: list[Outcome[Prediction]] = []
        for row in rows:
            if isinstance(row, Exception):
                outcomes.append(Outcome(row))
                continue
            answer = next(answers)
            if refusal := "no_digit" if row is None else self._refusal(answer):
                answer = replace(answer, refusal=refusal)
            outcomes.append(Outcome(answer, (black if row is None else row,)))
        return outcomes

    def _prepare(self, pictures: Pictures, indexes: range) -> Sequence[NDArray[Any] | PictureError | None]:
        """Return each picture in the model's form, None for one on which nothing is written, or its error."""
        if not self._is_in_form(pictures):
            return [self._attempt(pictures, index, self._prepare_or_none) for index in indexes]
        batch = pictures[indexes.start : indexes.stop]
        if self.task.kind != "digits" or batch.dtype == np.float32:
            return list(batch)
        # Vectorised check: most arrays of digits are normalised already.
        is_normalized = images.are_normalized(np.asarray(batch, np.uint8))
        return [
            row if ready else self._attempt(pictures, index, self._prepare_or_none)
            for index, row, ready in zip(indexes, batch, is_normalized.tolist(), strict=True)
        ]

    def _prepare_or_none(self, picture: ImageSource) -> Pixels | None:
        try:
            return self.prepare(picture, self.task)
        except NoInkError:
            return None

    def _refusal(self, prediction: Prediction) -> Refusal | None:
        if self.task.reads_numbers:
            return None if prediction.looks_like_digit(self.min_is_digit) else "no_digit"
        return "unsure" if prediction.confidence < self.task.refuse_below else None

    def _decide_refused(self, outcomes: list[Outcome[Prediction]], pictures: Pictures, start: int) -> None:
        """Replace each refusal by the decision on what the reader finds; without a reader, it stays."""
        refused = [
            start + position
            for position, outcome in enumerate(outcomes)
            if isinstance(outcome.result, Prediction) and outcome.result.refusal
        ]
        with suppress(ReaderMissingError):
            for index, found, answers in self._classify_detected(pictures, refused):
                outcomes[index - start] = self._decide(outcomes[index - start], found, answers)

    def _decide(
        self, refusal: Outcome[Prediction], found: Detected | PictureError, answers: Sequence[Prediction]
    ) -> Outcome[Prediction]:
        if not isinstance(found, Detected):
            return Outcome(found)
        digits = images.digit_indexes(found, answers, self.min_is_digit)
        if len(digits) == 1:
            return Outcome(answers[digits[0]], (found.glyphs[digits[0]],))
        if not refusal.inputs[0].any():
            # Nothing was found at first: what resembles a digit most shows more than black.
            best = max(range(len(answers)), key=lambda index: answers[index].confidence)
            refusal = Outcome(replace(answers[best], refusal="no_digit"), (found.glyphs[best],))
        if not digits:
            return refusal
        assert isinstance(refusal.result, Prediction)
        several = replace(refusal.result, refusal="several_digits", count=len(digits))
        return Outcome(several, refusal.inputs)

    def _classify_detected(
        self, pictures: Pictures, indexes: Sequence[int]
    ) -> Iterator[tuple[int, Detected | PictureError, list[Prediction]]]:
        """Yield each index with what the reader finds on the picture and its predictions, or with its error.

        Pictures share a call of the classifier as long as it holds at most `max_batch` crops.
        """
        group: list[tuple[int, Detected | PictureError]] = []
        count = 0
        for index in indexes:
            page = self._attempt(pictures, index, self.page)
            found = self._detect(page) if isinstance(page, Page) else page
            size = len(found.glyphs) if isinstance(found, Detected) else 0
            if count + size > self.max_batch:
                yield from self._classify_group(group)
                group, count = [], 0
            group.append((index, found))
            count += size
        yield from self._classify_group(group)

    def _detect(self, page: Page) -> Detected:
        return (
            images.lone_digit(page) if page.digit is not None else images.detect(page, self.find(page.levels))
        )

    def _classify_group(
        self, group: Sequence[tuple[int, Detected | PictureError]]
    ) -> Iterator[tuple[int, Detected | PictureError, list[Prediction]]]:
        glyphs = [glyph for _, found in group if isinstance(found, Detected) for glyph in found.glyphs]
        predictions = self._classify(glyphs)
        end = 0
        for index, found in group:
            start, end = end, end + (len(found.glyphs) if isinstance(found, Detected) else 0)
            yield index, found, predictions[start:end]

    def _classify(self, inputs: Sequence[NDArray[Any]]) -> list[Prediction]:
        predictions: list[Prediction] = []
        for start in range(0, len(inputs), self.max_batch):
            group = inputs[start : start + self.max_batch]
            # np.stack takes 10 µs, also for one array.
            predictions += self.classify(np.stack(group) if len(group) > 1 else group[0][np.newaxis])
        return predictions

    def _attempt(
        self, pictures: Pictures, index: int, step: Callable[[ImageSource], _Step]
    ) -> _Step | PictureError:
        """Return what the step makes of the picture, or its error."""
        picture = pictures[index]
        if isinstance(picture, (ImageError, OSError)):
            return picture
        try:
            return step(to_pixels(pictures[index], self.task) if self._is_in_form(pictures) else picture)
        except (ImageError, OSError) as error:
            if isinstance(error, ImageError):
                error.index = index
            return without_tracebacks(error)

    def _is_in_form(self, pictures: Pictures) -> TypeGuard[Batch]:
        """True for an array in the model's form."""
        if not isinstance(pictures, np.ndarray):
            return False
        shapes = {"uint8": self.task.shape, "float32": self.task.instance_shape}
        return pictures.shape[1:] == shapes.get(str(pictures.dtype))
