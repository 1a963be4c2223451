"""Recognition: the one way from pictures to results, given a function that asks the model.

    recognition = Recognition(classify, task)
    for outcome in recognition.predict([b"…", pixels]):
        print(outcome.result)

Synchronous, and pure but for `classify` and `find`. Outcomes are yielded group by group: the pixels of all
pictures might not fit into memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import TaskCard
from digit_core.errors import ImageError, ReaderMissingError, ReadingNotSupportedError, without_tracebacks
from digit_core.images import MAX_PIXELS, Detected, NoInkError, Page, Peaks
from digit_core.inputs import ImageSource, Pixels, read_source
from digit_core.results import MIN_IS_DIGIT, Prediction, Reading, Refusal
from digit_core.tfserving.codec import Batch

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
    pixels = images.decode(data, max_pixels=max_pixels)
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

        Cascade for digits: the model decides on a drawing as it is. Where it refuses that, and on other
        pictures, the reader looks for the digit, if there is one.
        """
        size = max(1, min(self.max_batch, _GROUP_BYTES // math.prod(self.task.shape)))
        for start in range(0, len(pictures), size):
            indexes = range(start, min(start + size, len(pictures)))
            if self.task.reads_numbers and not self._are_prepared(pictures, indexes):
                yield from self._predict_digits(pictures, indexes)
            else:
                yield from self._predict_prepared(pictures, indexes)

    def read(self, pictures: Pictures) -> Iterator[Outcome[Reading]]:
        """Yield the digits on each picture, in order, or its error.

        The iteration raises ReadingNotSupportedError if the model's classes are not the ten digits, and
        ReaderMissingError.
        """
        if not self.task.reads_numbers:
            raise ReadingNotSupportedError(f"the model classifies {self.task.name}; it reads no numbers")
        group: list[Detected | PictureError] = []
        count = 0
        for index in range(len(pictures)):
            page = self._attempt(pictures, index, self.page)
            found = self._detect(page) if isinstance(page, Page) else page
            size = len(found.glyphs) if isinstance(found, Detected) else 0
            if count + size > self.max_batch:
                yield from self._read_group(group)
                group, count = [], 0
            group.append(found)
            count += size
        yield from self._read_group(group)

    def _predict_prepared(self, pictures: Pictures, indexes: range) -> Iterator[Outcome[Prediction]]:
        """Yield the model's answer on each picture, prepared as its task card says."""
        rows: Sequence[NDArray[Any] | PictureError]
        if self._are_prepared(pictures, indexes):
            rows = list(np.asarray(pictures)[indexes.start : indexes.stop])
        else:
            rows = [self._attempt(pictures, index, self._prepare) for index in indexes]
        answers = iter(self._classify([row for row in rows if not isinstance(row, Exception)]))
        for row in rows:
            if isinstance(row, Exception):
                yield Outcome(row)
            else:
                yield Outcome(self._decide(next(answers), row), (row,))

    def _prepare(self, picture: ImageSource) -> Pixels:
        """Return the picture in the model's form, black if nothing is written on it."""
        try:
            return self.prepare(picture, self.task)
        except NoInkError:
            return np.zeros(self.task.shape, np.uint8)

    def _are_prepared(self, pictures: Pictures, indexes: range) -> bool:
        """True for an array of inputs of the model; bytes of digits have to be in MNIST's form."""
        if not self._is_in_form(pictures):
            return False
        batch = pictures[indexes.start : indexes.stop]
        if self.task.kind != "digits" or batch.dtype == np.float32:
            return True
        return bool(images.are_normalized(np.asarray(batch, np.uint8)).all())

    def _predict_digits(self, pictures: Pictures, indexes: range) -> Iterator[Outcome[Prediction]]:
        """Yield the digit on each picture; the model is asked once for the drawings among them."""
        group: list[Page | PictureError] = []
        size = 0
        for index in indexes:
            page = self._attempt(pictures, index, self.page)
            group.append(page)
            size += page.levels.nbytes if isinstance(page, Page) else 0
            if size > _GROUP_BYTES:
                yield from self._predict_pages(group)
                group, size = [], 0
        yield from self._predict_pages(group)

    def _predict_pages(self, pages: Sequence[Page | PictureError]) -> Iterator[Outcome[Prediction]]:
        crops = [self._crop(page) if isinstance(page, Page) else None for page in pages]
        answers = iter(self._classify([crop for crop in crops if crop is not None]))
        for page, crop in zip(pages, crops, strict=True):
            whole = None if crop is None else (self._decide(next(answers), crop), crop)
            if not isinstance(page, Page):
                yield Outcome(page)
            elif whole and (page.is_input or not whole[0].refusal):
                yield Outcome(whole[0], (whole[1],))
            else:
                yield self._look(page, whole)

    def _crop(self, page: Page) -> NDArray[np.uint8] | None:
        """Return the digit of a drawing, or None for a picture on which the reader has to look for it."""
        return images.crop_picture(page) if page.is_input else images.crop_drawing(page)

    def _look(self, page: Page, whole: tuple[Prediction, Pixels] | None) -> Outcome[Prediction]:
        """Return the one digit that the reader finds, at the coarsest view at which the model agrees.

        Otherwise, and without a reader, the model decides on all ink of the picture: `whole` is its answer
        and the crop, if it was asked before.
        """
        count: int | None = None
        with suppress(ReaderMissingError):
            for levels, factor in page.views():
                found = images.detect(page, self.find(levels).scaled(factor))
                found, answers = images.settle(found, self._classify(found.glyphs))
                digits = images.digit_indexes(found, answers, self.min_is_digit)
                count = len(digits)
                if count == 1:
                    (index,) = digits
                    answer, score = answers[index], float(found.digits.scores[index])
                    return Outcome(
                        replace(answer, confidence=score * answer.confidence), (found.glyphs[index],)
                    )
        answer, crop = whole or self._ask_whole(page)
        if count is not None:
            refusal: Refusal = "several_digits" if count else "no_digit"
            answer = replace(answer, refusal=refusal, count=count or None)
        return Outcome(answer, (crop,))

    def _ask_whole(self, page: Page) -> tuple[Prediction, Pixels]:
        crop = images.crop_picture(page)
        (answer,) = self._classify([crop])
        return self._decide(answer, crop), crop

    def _decide(self, answer: Prediction, row: NDArray[Any]) -> Prediction:
        """Return the answer on an input, refused if nothing is written there or the model is not sure."""
        refusal: Refusal | None = None
        if self.task.kind == "digits" and not row.any():
            refusal = "no_digit"
        elif self.task.reads_numbers:
            refusal = None if answer.looks_like_digit(self.min_is_digit) else "no_digit"
        elif answer.confidence < self.task.refuse_below:
            refusal = "unsure"
        return replace(answer, refusal=refusal) if refusal else answer

    def _read_group(self, group: Sequence[Detected | PictureError]) -> Iterator[Outcome[Reading]]:
        """Yield the reading of each picture; all crops share a call of the model."""
        answers = self._classify(
            [glyph for found in group if isinstance(found, Detected) for glyph in found.glyphs]
        )
        end = 0
        for found in group:
            if not isinstance(found, Detected):
                yield Outcome(found)
                continue
            start, end = end, end + len(found.glyphs)
            reading, inputs = images.read(found, answers[start:end], self.min_is_digit)
            yield Outcome(reading, inputs)

    def _detect(self, page: Page) -> Detected:
        return (
            images.lone_digit(page) if page.digit is not None else images.detect(page, self.find(page.levels))
        )

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
