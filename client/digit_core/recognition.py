"""Recognition: the one way from pictures to results, sans-I/O.

    for outcome in drive(Recognition(task).predict([b"…", pixels]), ask):
        print(outcome.result)

`predict` and `read` are plain generators, as httpx's authentication flows are. They yield requests (Prepare,
Compute, Classify, Find), are sent the answers, and yield an Outcome for each picture, group by group: the
pixels of all pictures might not fit into memory. A driver answers the requests.
"""

import math
import operator
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, Generic, TypeAlias, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_core import images
from digit_core.artifact.task_card import TaskCard
from digit_core.errors import (
    ImageError,
    ImageShapeError,
    InvalidOutputError,
    ReaderMissingError,
    ReadingNotSupportedError,
    TooManyDigitsError,
    without_tracebacks,
)
from digit_core.images import MAX_PIXELS, ImageFile, NoInkError, Page
from digit_core.inputs import ImageSource, Pixels, read_source
from digit_core.options import DEFAULTS, Options
from digit_core.reading.certainty import log_odds
from digit_core.reading.lines import (
    Detected,
    choose_digits,
    detect,
    digits_and_signs,
    lone_digit,
    mix_best,
    settle,
)
from digit_core.reading.peaks import Peaks
from digit_core.reading.text import read
from digit_core.reading.thresholds import THRESHOLDS
from digit_core.results import Answer, Box, Orientation, Prediction, Reading, Refusal
from digit_core.tfserving.codec import Batch

MAX_BATCH = 256
"""Largest number of pictures in a call: TensorFlow Serving's batching refuses larger ones."""
_GROUP_BYTES = 8 * 1024 * 1024
"""Bytes of the prepared pictures of a group; gRPC buffers 16 MiB for a retry."""
_PEAK_COST = 30_000
"""Cost of a peak, in pixels that are decoded in the same time: .15 ms for its crop, or its texts."""

PictureError: TypeAlias = ImageError | OSError
"""Error of one picture: it can't be read, decoded, taken by the model or answered."""
Pictures: TypeAlias = "Sequence[ImageSource | PictureError] | Batch"
"""Pictures, errors of pictures that could not be read, or an array: uint8 [n, *shape] or float32
[n, *instance_shape] is in the model's form, any other array holds one picture an item."""

_Result = TypeVar("_Result", Prediction, Reading, covariant=True)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_Result]):
    """Result for a picture, or the error in its place.

    `inputs` are the model's inputs behind the result, in its form: one for a prediction, black if nothing is
    written on the picture; one for each digit of a reading; none for an error.
    """

    result: _Result | PictureError
    inputs: Sequence[NDArray[Any]] = ()


Prepared: TypeAlias = Page | Pixels | list[Page | ImageShapeError]
"""Page of a picture, input of a model, or the pages of parts, with the errors of boxes outside."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Request for a picture in the form that the task's model takes, or without `task` for its grey page.

    It takes long; a driver may run it in a thread. Its errors, ImageError and OSError, are the picture's.
    """

    picture: ImageSource
    task: TaskCard | None = None
    boxes: Sequence[Box] = ()
    """Parts whose pages are asked for in place of the picture's; they have its full resolution."""

    def open(self, max_pixels: int = MAX_PIXELS) -> ImageFile | Pixels:
        """Return the picture if it is an array, else its file, of which the header is read."""
        if isinstance(self.picture, np.ndarray):
            return self.picture
        data = self.picture if isinstance(self.picture, bytes) else read_source(self.picture)
        if self.task is None:
            min_side = max_pixels if self.boxes else None
            return images.open_image(data, max_pixels=max_pixels, grey=True, min_side=min_side)
        return images.open_for_task(data, self.task, max_pixels=max_pixels)

    def finish(self, opened: ImageFile | Pixels, pixels: Pixels) -> Prepared:
        """Return the page or the model's input of the decoded pixels of what was opened."""
        if self.task is None:
            pixels = pixels if isinstance(opened, ImageFile) else images.to_uint8_image(pixels)
            if self.boxes:
                return [images.to_part(pixels, box) for box in self.boxes]
            return images.to_page(pixels, opened.size if isinstance(opened, ImageFile) else None)
        try:
            return images.prepare(pixels, self.task)
        except NoInkError:
            return np.zeros(self.task.shape, np.uint8)

    def __call__(self) -> Prepared:
        """Answer the request."""
        opened = self.open()
        return self.finish(opened, opened.decode() if isinstance(opened, ImageFile) else opened)


@dataclass(frozen=True, slots=True)
class Compute:
    """Request for the result of a function, whose cost grows with what a page shows.

    A driver may run it in a thread. Its errors are the picture's.
    """

    function: Callable[[], Any]
    cost: int
    """Pixels that are decoded in the same time."""

    def __call__(self) -> Any:
        """Answer the request."""
        return self.function()


@dataclass(frozen=True, slots=True)
class Classify:
    """Request for the model's answers to a batch in its form, in order. Errors end the recognition.

    An InvalidOutputError in place of a row is its picture's error. A TaskCard in place of the answers is that
    of another version, which answers from now on: the pictures are prepared for it, and sent again.
    """

    batch: Batch
    pictures: Sequence[ImageSource] = ()
    """Pictures that the rows show whole, so that another card can prepare them; none of crops."""


@dataclass(frozen=True, slots=True)
class Find:
    """Request for the reader's peaks on a grey page, uint8 [h, w].

    The answer is Peaks; ReaderMissingError says that there is no reader; other errors end the recognition.
    """

    page: NDArray[np.uint8]


Request: TypeAlias = Prepare | Compute | Classify | Find
Steps: TypeAlias = Generator[Request | Outcome[_Result], Any, None]
"""Recognition of pictures: its requests are sent answers, or have errors thrown into them."""
_Asking: TypeAlias = Generator[Request, Any, _Answer]
_Read: TypeAlias = tuple[Reading, list[NDArray[np.uint8]], bool]


def drive(
    steps: Steps[_Result],
    ask: Callable[[Classify | Find], Any],
    work: Callable[[Prepare | Compute], Any] = operator.call,
) -> Iterator[Outcome[_Result]]:
    """Blocking driver: yield the outcomes, in order.

    `ask` and `work` return the answers to the requests, or raise their errors.
    """
    with suppress(StopIteration):
        step = next(steps)
        while True:
            if isinstance(step, Outcome):
                yield step
                step = next(steps)
            else:
                step = answer(steps, step, work if isinstance(step, (Prepare, Compute)) else ask)


def answer(steps: Steps[_Result], request: Any, ask: Callable[[Any], Any]) -> Request | Outcome[_Result]:
    """Send the answer to a request, or throw its error, and return the next step."""
    try:
        answered = ask(request)
    except Exception as error:
        return steps.throw(error)
    return steps.send(answered)


def to_pixels(row: NDArray[Any], task: TaskCard) -> Pixels:
    """Return an array in the model's form, uint8 or float32 in the task's range, as uint8 of its shape."""
    if row.dtype == np.uint8:
        return row
    low, high = task.range
    return images.to_uint8((row.astype(np.float32) - low).reshape(task.shape) * (255 / (high - low)))


class Recognition:
    """Recognition of pictures by a model of this task, with the help of a reader.

    `max_batch` is the largest number of rows of a Classify, `max_digits` that of the digits that are read of
    a picture; the options are those of PredictOptions or ReadOptions.
    """

    def __init__(
        self,
        task: TaskCard,
        max_batch: int = MAX_BATCH,
        options: Options = DEFAULTS,
        max_digits: int | None = None,
    ) -> None:
        self._task, self._max_batch, self._options = task, max_batch, options
        self._max_digits = max_digits
        self._min_is_digit = options["min_is_digit"]
        self._reads_numbers = task.reads_numbers

    def predict(self, pictures: Pictures) -> Steps[Prediction]:
        """Yield the class of each picture, in order, or its refusal or error.

        Cascade for digits: the model alone decides on a drawing. If it refuses the drawing, and on other
        pictures, the reader looks for the digit, if the service has one.
        """
        task, size = self._task, max(1, min(self._max_batch, _GROUP_BYTES // math.prod(self._task.shape)))
        for start in range(0, len(pictures), size):
            group = pictures[start : start + size]
            if self._task is not task and isinstance(group, np.ndarray) and group.dtype == np.float32:
                # Another version answered the group before: the range of these numbers is that of the first.
                group = [to_pixels(row, task) for row in group]
            if self._are_inputs(group):
                yield from self._predict_inputs(list(group))
            elif self._reads_numbers:
                yield from self._predict_digits(group, start)
            else:
                inputs = []
                for index, picture in enumerate(group, start):
                    inputs.append((yield from self._prepare(picture, index)))
                yield from self._predict_inputs(inputs, group)

    def read(self, pictures: Pictures) -> Steps[Reading]:
        """Yield the digits on each picture, or on each of its parts, in order, or its error.

        Raise ReadingNotSupportedError if the model's classes are not the ten digits.
        """
        if not self._reads_numbers:
            raise ReadingNotSupportedError(f"the model classifies {self._task.name}; it reads no numbers")
        if self._is_in_form(pictures):
            pictures = [to_pixels(row, self._task) for row in pictures]
        group: list[tuple[Detected | PictureError, Options]] = []
        count, boxes = 0, self._options["box"]
        for index, picture in enumerate(pictures):
            prepared = yield from self._prepare(picture, index, boxes)
            pages = prepared if isinstance(prepared, list) else [prepared] * self._options.parts
            for place, page in enumerate(pages):
                found = (yield from self._find(page)) if isinstance(page, Page) else page
                size = len(found.glyphs) if isinstance(found, Detected) else 0
                if count + size > self._max_batch:
                    yield from self._read_group(group)
                    group, count = [], 0
                group.append((found, self._options.of_part(place)))
                count += size
        yield from self._read_group(group)

    def _predict_inputs(
        self, rows: list[NDArray[Any] | PictureError], pictures: Pictures = ()
    ) -> Steps[Prediction]:
        """Yield the model's answer on each of its inputs, which show these pictures."""
        answers = yield from self._classify(rows, pictures)
        for answer, row in zip(answers, rows, strict=True):
            yield self._if_sure(self._decide(answer, row))

    def _predict_digits(self, pictures: Pictures, start: int) -> Steps[Prediction]:
        """Yield the digit on each picture; the model is asked once for the drawings among them."""
        group: list[Page | PictureError] = []
        size = 0
        for index, picture in enumerate(pictures, start):
            page = yield from self._prepare(picture, index)
            group.append(page)
            size += page.levels.nbytes if isinstance(page, Page) else 0
            if size > _GROUP_BYTES:
                yield from self._predict_pages(group)
                group, size = [], 0
        yield from self._predict_pages(group)

    def _predict_pages(self, pages: Sequence[Page | PictureError]) -> Steps[Prediction]:
        crops: list[NDArray[np.uint8] | None] = []
        for page in pages:
            crops.append((yield from _crop(page)) if isinstance(page, Page) else None)
        answers = iter((yield from self._classify([crop for crop in crops if crop is not None])))
        for page, crop in zip(pages, crops, strict=True):
            whole = None if crop is None else self._decide(next(answers), crop)
            if not isinstance(page, Page):
                yield Outcome(page)
                continue
            if not whole or (not page.is_input and getattr(whole.result, "refusal", None)):
                whole = yield from _or_error(self._look(page, whole))
            elif not page.is_input:
                whole = yield from self._mix(page, whole)
            yield self._if_sure(whole)

    def _mix(self, page: Page, whole: Outcome[Prediction]) -> _Asking[Outcome[Prediction]]:
        """Return the answer on a drawing; if the model is not sure, both networks decide on the class."""
        answer = whole.result
        if isinstance(answer, Prediction) and answer.certainty < THRESHOLDS.sure_alone:
            with suppress(ReaderMissingError):
                return replace(whole, result=mix_best(answer, (yield Find(page.levels))))
        return whole

    def _look(self, page: Page, whole: Outcome[Prediction] | None) -> _Asking[Outcome[Prediction]]:
        """Return the one digit that the reader finds, at the coarsest view that is sure of it.

        The model's answer to all ink decides without a reader, if the model is sure of all ink while neither
        network is sure of a part, and on a close crop where the reader finds no digit. `whole` is this
        answer, if it is known already.
        """
        count: int | None = None
        part: Outcome[Prediction] | None = None
        with suppress(ReaderMissingError):
            for levels, factor in page.views():
                found = yield from _detect(page, (yield Find(levels)).scaled(factor))
                found, answers = settle(found, (yield from self._classify([*found.glyphs])))
                digits, is_digit = choose_digits(found, answers, self._min_is_digit)
                count = len(digits)
                if count == 1:
                    (index,) = digits
                    answer = answers[index]
                    if float(found.digits.scores[index]) * answer.certainty >= THRESHOLDS.sure or factor == 1:
                        box = page.to_picture(found.digits.boxes[index])
                        part = Outcome(_with_is_digit(answer, is_digit, box=box), (found.glyphs[index],))
                        break
        if part and answer.certainty >= THRESHOLDS.sure_alone:
            return part
        whole = whole or (yield from self._ask_whole(page))
        if count is None or _decides(whole.result, found, is_alone=not count):
            return whole
        if part:
            return part
        if not isinstance(whole.result, Prediction):
            return whole
        refusal = "several_digits" if count else "no_digit"
        return replace(
            whole, result=_with_is_digit(whole.result, is_digit, refusal=refusal, count=count or None)
        )

    def _ask_whole(self, page: Page) -> _Asking[Outcome[Prediction]]:
        crop = yield Compute(partial(images.crop_picture, page), page.levels.size)
        (answer,) = yield from self._classify([crop])
        return self._decide(answer, crop)

    def _decide(self, answer: Prediction | PictureError, row: Any) -> Outcome[Prediction]:
        """Return the answer on an input, refused if nothing is written there or the model is not sure."""
        if not isinstance(answer, Prediction):
            return Outcome(answer)
        refusal: Refusal | None = None
        if self._task.kind == "digits" and not np.count_nonzero(row):
            answer, refusal = _with_is_digit(answer, 0.0), "no_digit"
        elif self._reads_numbers:
            refusal = None if answer.looks_like_digit(self._min_is_digit) else "no_digit"
        elif answer.confidence < self._task.refuse_below:
            refusal = "unsure"
        return Outcome(replace(answer, refusal=refusal) if refusal else answer, (row,))

    def _if_sure(self, outcome: Outcome[Prediction]) -> Outcome[Prediction]:
        """Return the outcome, refused as `unsure` if its certainty is below `min_confidence`."""
        answer = outcome.result
        if not isinstance(answer, Prediction) or answer.refusal:
            return outcome
        is_sure = answer.certainty >= (self._options["min_confidence"] or 0)
        return outcome if is_sure else replace(outcome, result=replace(answer, refusal="unsure"))

    def _read_group(self, group: Sequence[tuple[Detected | PictureError, Options]]) -> Steps[Reading]:
        """Yield the reading of each picture or part, by its options; all crops share a call of the model."""
        answers = yield from self._classify(
            [glyph for found, _ in group if isinstance(found, Detected) for glyph in found.glyphs]
        )
        end = 0
        for found, options in group:
            if not isinstance(found, Detected):
                yield _of_field(Outcome(found), options)
                continue
            start, end = end, end + len(found.glyphs)
            outcome = yield from _or_error(self._read_page(found, answers[start:end], options))
            yield _of_field(outcome, options)

    def _read_page(
        self, found: Detected, answers: Sequence[Answer], options: Options
    ) -> _Asking[Outcome[Reading]]:
        """Return the reading of a page, by the answers to its crops."""
        reading, inputs, is_part = yield from self._read_lines(found, answers, options)
        is_doubtful = len(reading.digits) != 1 and reading.confidence < THRESHOLDS.sure_number
        if found.is_anything and (is_doubtful or is_part):
            as_sent, least = reading, THRESHOLDS.min_turned
            if options.expectation and not reading.lines:
                # A turned page that fits what is expected only needs better digits.
                as_sent, *_ = yield from self._read_text(found, answers, Options(options, ()))
                least = 0.0
            least += max(0.0, _mean_evidence(as_sent))
            orientation = yield from self._orientation(found.page, least, options)
            if orientation and options["turn"]:
                found = yield from self._find(found.page.rotated(orientation))
                answers = yield from self._classify([*found.glyphs])
                reading, inputs, _ = yield from self._read_text(found, answers, options)
                reading = replace(reading, is_turned=True, text_as_sent=as_sent.text)
            reading = replace(reading, orientation=orientation)
        if reading.lines and reading.confidence < (options["min_confidence"] or 0):
            return Outcome(replace(reading, text="", lines=(), refusal="unsure"))
        return Outcome(reading, inputs)

    def _read_lines(self, found: Detected, answers: Sequence[Answer], options: Options) -> _Asking[_Read]:
        """Return the reading of a page, or of all its ink as one digit, as `_look` decides."""
        lines = yield from self._read_text(found, answers, options)
        digits = lines[0].digits
        is_unsure = len(digits) <= 1 and all(each.certainty < THRESHOLDS.sure_alone for each in digits)
        if is_unsure and found.is_anything and found.page.digit is None:
            whole = yield from self._ask_whole(found.page)
            if _decides(whole.result, found, is_alone=not digits):
                digit = lone_digit(found.page, whole.inputs[0])
                lone = yield from self._read_text(digit, [whole.result], options)
                # All ink may be another digit than the one that is expected.
                return lone if lone[0].digits else lines
        return lines

    def _orientation(self, page: Page, least: float, options: Options) -> _Asking[Orientation | None]:
        """Return how the page has to be turned so that a number's digits have this mean evidence, or None.

        The model is asked about the one turn that shows the reader most digits.
        """
        turns = []
        for orientation in (90, 180, 270):
            turned = page.rotated(orientation, THRESHOLDS.rotated_side)
            peaks = yield Find(turned.levels)
            scores = digits_and_signs(peaks)[0].scores
            turns.append((float(scores[scores >= THRESHOLDS.sure].sum()), orientation, turned, peaks))
        total, orientation, turned, peaks = max(turns, key=itemgetter(0))
        # A score is at most 1: one digit does not make a number.
        if total <= 1:
            return None
        found = yield from _detect(turned, peaks)
        answers = yield from self._classify([*found.glyphs])
        with suppress(TooManyDigitsError):
            reading, *_ = yield from self._read_text(found, answers, options)
            if len(reading.digits) > 1 and _mean_evidence(reading) >= least:
                return orientation
        return None

    def _read_text(self, found: Detected, answers: Sequence[Answer], options: Options) -> _Asking[_Read]:
        reading = partial(read, found, answers, options, self._max_digits)
        answered: _Read = yield Compute(reading, _PEAK_COST * len(found.digits))
        return answered

    def _find(self, page: Page) -> _Asking[Detected]:
        if page.digit is not None:
            return lone_digit(page, page.digit)
        return (yield from _detect(page, (yield Find(page.levels))))

    def _classify(self, inputs: list[Any], pictures: Pictures = ()) -> _Asking[list[Any]]:
        """Return the answers to inputs, which show these pictures; an error in place of an input stays.

        Another version may answer than the one that the inputs were prepared for: these are replaced.
        """
        answers: list[Any] = []
        for start in range(0, len(inputs), self._max_batch):
            part = slice(start, start + self._max_batch)
            answered = yield from _ask(inputs[part], pictures[part])
            while isinstance(answered, TaskCard):
                inputs[start:] = yield from self._prepare_as(answered, inputs[start:], pictures[start:])
                answered = yield from _ask(inputs[part], pictures[part])
            answers += answered
        return answers

    def _prepare_as(
        self, card: TaskCard, inputs: list[Any], pictures: Pictures
    ) -> _Asking[list[NDArray[Any] | PictureError]]:
        """Return the inputs as another card has them, by which all further pictures are prepared."""
        earlier, self._task = self._task, card
        if card.prepares_as(earlier):
            return inputs
        prepared: list[Any] = []
        for index, row in enumerate(inputs):
            if not isinstance(row, Exception):
                picture: Any = pictures[index] if len(pictures) else to_pixels(row, earlier)
                try:
                    row = yield Prepare(picture, card)
                except (ImageError, OSError) as error:
                    row = without_tracebacks(error)
            prepared.append(row)
        return prepared

    def _prepare(
        self, picture: "ImageSource | PictureError", index: int, boxes: Sequence[Box] = ()
    ) -> _Asking[Any]:
        """Return the page, the pages of parts or the model's input of a picture, or its error."""
        if isinstance(picture, Exception):
            return picture
        try:
            return (yield Prepare(picture, None if self._reads_numbers else self._task, boxes))
        except (ImageError, OSError) as error:
            if isinstance(error, ImageError):
                error.index = index
            return without_tracebacks(error)

    def _are_inputs(self, pictures: Pictures) -> TypeGuard[Batch]:
        """True for an array of inputs of the model; bytes of digits have to be in MNIST's form."""
        if not self._is_in_form(pictures):
            return False
        if self._task.kind != "digits" or pictures.dtype == np.float32:
            return True
        return bool(images.are_normalized(np.asarray(pictures, np.uint8)).all())

    def _is_in_form(self, pictures: Pictures) -> TypeGuard[Batch]:
        """True for an array in the model's form."""
        if not isinstance(pictures, np.ndarray):
            return False
        shapes = {"uint8": self._task.shape, "float32": self._task.instance_shape}
        return pictures.shape[1:] == shapes.get(str(pictures.dtype))


def _ask(rows: Sequence[Any], pictures: Any) -> _Asking[Any]:
    """Return the answers to inputs, with errors in place of some of them, or a TaskCard."""
    inputs = [row for row in rows if not isinstance(row, Exception)]
    if not inputs:
        return rows
    shown = [each for each, row in zip(pictures, rows, strict=False) if not isinstance(row, Exception)]
    # np.stack takes 10 µs, also for one array.
    answered = yield Classify(np.stack(inputs) if len(inputs) > 1 else inputs[0][np.newaxis], shown)
    if len(inputs) == len(rows) or isinstance(answered, TaskCard):
        return answered
    remaining = iter(answered)
    return [row if isinstance(row, Exception) else next(remaining) for row in rows]


def _detect(page: Page, peaks: Peaks) -> _Asking[Detected]:
    found: Detected = yield Compute(partial(detect, page, peaks), _PEAK_COST * len(peaks))
    return found


def _or_error(asking: _Asking[Outcome[_Result]]) -> _Asking[Outcome[_Result]]:
    """Return the outcome of a picture, or its error: too many digits, or no valid answer to a crop."""
    try:
        return (yield from asking)
    except (InvalidOutputError, TooManyDigitsError) as error:
        return Outcome(without_tracebacks(error))


def _of_field(outcome: Outcome[Reading], options: Options) -> Outcome[Reading]:
    """Return the outcome of a part with its name, if it is a field of a form, and its box."""
    if options.field is None:
        return outcome
    result = outcome.result
    if isinstance(result, Reading):
        return replace(outcome, result=replace(result, field=options.field, box=options["box"][0]))
    if isinstance(result, ImageShapeError):
        return Outcome(ImageShapeError(f"the field {options.field}: {result.message}"))
    return outcome


def _with_is_digit(answer: Prediction, is_digit: float, **changes: Any) -> Prediction:
    """Return the answer with the `is_digit` that decided, if the model learns one, and the changes."""
    return replace(answer, is_digit=answer.is_digit if answer.is_digit is None else is_digit, **changes)


def _decides(answer: Prediction | PictureError, found: Detected, *, is_alone: bool) -> TypeGuard[Prediction]:
    """True if the model's answer to all ink decides on a page.

    The model has to be sure of the digit whose parts the reader sees. Where it is alone, since the reader
    sees no digit in them, a close crop shows one if the model does not refuse all its ink.
    """
    if not isinstance(answer, Prediction) or answer.is_digit is None or not found.is_anything:
        return False
    if is_alone and found.page.is_close:
        return answer.refusal is None
    return answer.certainty >= THRESHOLDS.sure_alone


def _mean_evidence(reading: Reading) -> float:
    """Return the mean log-odds of the digits' certainties, 0 without digits."""
    digits = reading.digits
    return float(log_odds(np.array([digit.certainty for digit in digits])).mean()) if digits else 0.0


def _crop(page: Page) -> _Asking[NDArray[np.uint8] | None]:
    """Return the digit of a drawing, or None for a picture on which the reader has to look for it."""
    if page.digit is not None:
        return page.digit
    crop = images.crop_picture if page.is_input else images.crop_drawing
    digit: NDArray[np.uint8] | None = yield Compute(partial(crop, page), page.levels.size)
    return digit
