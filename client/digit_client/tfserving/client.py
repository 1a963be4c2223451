"""gRPC client of TensorFlow Serving, with DigitClient's interface and without a gateway."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from digit_client import _inputs
from digit_client import images as digit_images
from digit_client._exceptions import ImageError, NoDigitError, ReadingNotSupportedError
from digit_client._inputs import ImageSource
from digit_client._retries import Deadline, Retrier, RetryPolicy
from digit_client._task import DIGITS, TaskCard
from digit_client._types import Prediction, Reading
from digit_client.images import Candidates
from digit_client.tfserving.codec import Batch, ModelRef
from digit_client.tfserving.model_server import ModelServer
from digit_client.tfserving.tasks import with_current_task

_DEFAULT_TARGET = "127.0.0.1:8500"
_BATCH_SIZE = 256
# Bytes of prepared pictures in a call; the channel buffers 16 MiB for a retry.
_BATCH_BYTES = 8 * 1024 * 1024
# Shape of a glyph.
_GLYPH = (digit_images.SIDE, digit_images.SIDE)

_Result = TypeVar("_Result")
_Decide: TypeAlias = Callable[[Candidates, Sequence[Prediction]], _Result]


class ModelServerClient:
    """Blocking gRPC client of TensorFlow Serving. This process decodes and prepares the images.

        with ModelServerClient("127.0.0.1:8500", name="flowers") as client:
            print(client.predict("rose.jpg").label)

    `target` is host:port or unix:path (default: DIGITS_MODEL_SERVER, or 127.0.0.1:8500), `name` the model's
    name. The model's task card says how images are prepared; the client asks for it once per version.
    `timeout` in seconds bounds a call with all its retries. `credentials` from grpc.ssl_channel_credentials
    enable TLS. Images, results, errors and thread safety are those of DigitClient.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        name: str = "digits",
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 10.0,
        retries: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._retrier = Retrier(retries or RetryPolicy())
        target = target or os.environ.get("DIGITS_MODEL_SERVER") or _DEFAULT_TARGET
        self._server = ModelServer(target, credentials)

    def predict(
        self, image: ImageSource, *, version: int | None = None, label: str | None = None
    ) -> Prediction:
        """Classify one image. A version number or label selects another version than the newest one."""
        deadline = Deadline(self.timeout)
        model = ModelRef(self.name, version, label)
        return self._predict([_Picture(_reusable(image))], model, deadline)[0]

    def predict_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Prediction]:
        """Classify each image, in their order, at most 256 images a call."""
        deadline = Deadline(self.timeout)
        model = ModelRef(self.name, version, label)
        answers = (self._predict(pictures, model, deadline) for pictures in _batches(images))
        return [prediction for answer in answers for prediction in answer]

    def read(self, image: ImageSource, *, version: int | None = None, label: str | None = None) -> Reading:
        """Read all digits on one image, in lines. Version and label as for `predict`."""
        deadline = Deadline(self.timeout)
        model = ModelRef(self.name, version, label)
        return self._read([_Picture(_reusable(image))], model, deadline)[0]

    def read_many(
        self, images: Iterable[ImageSource], *, version: int | None = None, label: str | None = None
    ) -> list[Reading]:
        """Read all digits on each image, in the images' order, 256 candidates for digits a call."""
        deadline = Deadline(self.timeout)
        model = ModelRef(self.name, version, label)
        answers = (self._read(pictures, model, deadline) for pictures in _batches(images))
        return [reading for answer in answers for reading in answer]

    def close(self) -> None:
        """Close the connection. A closed client can't be used again."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _predict(
        self, pictures: Sequence["_Picture"], model: ModelRef, deadline: Deadline
    ) -> list[Prediction]:
        def predict(task: TaskCard) -> list[Prediction]:
            if task.reads_numbers:
                return self._predict_digits(pictures, model, deadline)
            return self._predict_prepared(pictures, task, model, deadline)

        return self._with_task(predict, model, deadline)

    def _predict_prepared(
        self, pictures: Sequence["_Picture"], task: TaskCard, model: ModelRef, deadline: Deadline
    ) -> list[Prediction]:
        size = max(1, min(_BATCH_SIZE, _BATCH_BYTES // math.prod(task.shape)))
        groups = (pictures[start : start + size] for start in range(0, len(pictures), size))
        batches = (np.stack([picture.prepare(task) for picture in group]) for group in groups)
        return [prediction for batch in batches for prediction in self._send(batch, model, deadline)]

    def _predict_digits(
        self, pictures: Sequence["_Picture"], model: ModelRef, deadline: Deadline
    ) -> list[Prediction]:
        """Cascade: the normalised picture decides where the model accepts it, else its candidates do."""
        glyphs = [picture.normalise() for picture in pictures]
        answers = self._classify(glyphs, model, deadline)
        accepted = [
            answer[0] if answer and (answer[0].is_accepted or picture.is_model_input(glyph)) else None
            for picture, glyph, answer in zip(pictures, glyphs, answers, strict=True)
        ]
        others = [picture for picture, answer in zip(pictures, accepted, strict=True) if answer is None]
        decided = iter(self._decide_by_candidates(others, digit_images.single_digit, model, deadline))
        return [answer or next(decided) for answer in accepted]

    def _read(self, pictures: Sequence["_Picture"], model: ModelRef, deadline: Deadline) -> list[Reading]:
        def read(task: TaskCard) -> list[Reading]:
            if not task.reads_numbers:
                raise ReadingNotSupportedError(
                    f"the model {model} classifies {task.name}; it reads no numbers"
                )
            return self._decide_by_candidates(pictures, digit_images.read, model, deadline)

        return self._with_task(read, model, deadline)

    def _with_task(
        self, run: Callable[[TaskCard], list[_Result]], model: ModelRef, deadline: Deadline
    ) -> list[_Result]:
        def known_task() -> TaskCard:
            # A known task is no call: it needs no time, and adds nothing to the retry budget.
            return self._server.known_task(model) or self._retrier.run(
                lambda timeout: self._server.task(model, timeout=timeout), deadline
            )

        def latest_task() -> TaskCard:
            return self._retrier.run(
                lambda timeout: self._server.latest_task(model, timeout=timeout), deadline
            )

        return with_current_task(known_task, latest_task, run)

    def _decide_by_candidates(
        self,
        pictures: Sequence["_Picture"],
        decide: _Decide[_Result],
        model: ModelRef,
        deadline: Deadline,
    ) -> list[_Result]:
        """Return the decision on each picture by the predictions of its candidates."""
        candidates = [picture.segment() for picture in pictures]
        answers = self._classify([each.glyphs for each in candidates], model, deadline)
        return [
            picture.decide(decide, found, predictions)
            for picture, found, predictions in zip(pictures, candidates, answers, strict=True)
        ]

    def _classify(
        self, groups: Sequence[NDArray[np.uint8]], model: ModelRef, deadline: Deadline
    ) -> list[list[Prediction]]:
        """Return the predictions for each group of glyphs, uint8 [k, 28, 28]. The groups share calls."""
        glyphs = np.concatenate(groups) if groups else np.empty((0, *_GLYPH), np.uint8)
        batches = (glyphs[start : start + _BATCH_SIZE] for start in range(0, len(glyphs), _BATCH_SIZE))
        predictions = chain.from_iterable(self._send(batch, model, deadline) for batch in batches)
        return [list(islice(predictions, len(group))) for group in groups]

    def _send(self, batch: Batch, model: ModelRef, deadline: Deadline) -> list[Prediction]:
        def send(timeout: float) -> list[Prediction]:
            return self._server.predict(batch, model, timeout=timeout)

        return self._retrier.run(send, deadline)


@dataclass(frozen=True, slots=True)
class _Picture:
    """Picture of a call. Each use decodes it anew: the pixels of a batch might not fit into memory.

    `index` is its position among several; ImageErrors get it. `is_array_item` is True for an item of an array
    that may be a batch in the model's form.
    """

    source: ImageSource
    index: int | None = None
    is_array_item: bool = False

    def prepare(self, task: TaskCard) -> NDArray[np.uint8]:
        """Return the picture in the model's form: uint8 of the task's shape."""
        with self._adding_index():
            return digit_images.prepare(self._decode(task), task)

    def normalise(self) -> NDArray[np.uint8]:
        """Return the normalised picture, uint8 [1, 28, 28], or an empty array if it shows no digit."""
        with self._adding_index():
            try:
                return digit_images.normalise(self._decode(DIGITS))[np.newaxis]
            except NoDigitError:
                return np.empty((0, *_GLYPH), np.uint8)

    def is_model_input(self, glyph: NDArray[np.uint8]) -> bool:
        """True if the caller gave the model's input: its prediction is the answer, digit or not."""
        return self.is_array_item and np.array_equal(glyph[0], np.asarray(self.source))

    def segment(self) -> Candidates:
        """Return the picture's candidates for digits."""
        with self._adding_index():
            if isinstance(self.source, np.ndarray):
                return digit_images.segment(self.source)
            data = _inputs.read_source(self.source)
            pixels = digit_images.decode(data, side=digit_images.READING_SIDE)
            return digit_images.segment(pixels, size=digit_images.original_size(data))

    def decide(
        self, decide: _Decide[_Result], candidates: Candidates, predictions: Sequence[Prediction]
    ) -> _Result:
        """Return what `decide` finds on the picture."""
        with self._adding_index():
            return decide(candidates, predictions)

    def _decode(self, task: TaskCard) -> NDArray[Any]:
        if isinstance(self.source, np.ndarray):
            return self.source
        return digit_images.decode_for_task(_inputs.read_source(self.source), task)

    @contextmanager
    def _adding_index(self) -> Iterator[None]:
        try:
            yield
        except ImageError as error:
            error.index = self.index
            raise


def _batches(images: Iterable[ImageSource]) -> Iterator[list[_Picture]]:
    is_array = _inputs.is_batch(images)
    numbered = enumerate(images)
    while batch := list(islice(numbered, _BATCH_SIZE)):
        yield [_Picture(_reusable(image), index, is_array) for index, image in batch]


def _reusable(image: ImageSource) -> ImageSource:
    """Return the content of an open file, which can be read only once; other sources as they are."""
    return image.read() if hasattr(image, "read") else image
