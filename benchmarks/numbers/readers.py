"""Readers: a model in this process, or a running gateway."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_client import Client
from digit_core import recognition
from digit_core.artifact.task_card import DIGITS
from digit_core.options import DEFAULTS, Options
from digit_core.reading.expectations import Expectation
from digit_core.reading.peaks import Peaks
from digit_core.results import Prediction, Reading
from digit_core.tfserving.codec import LINE_WEIGHTS_OUTPUT, Batch

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """Answers to a picture; None is a refusal.

    `text` and `text_confidence` are from reading; `digit`, `digit_confidence` and `is_digit` from predicting
    one digit. The seconds are 0 where the work is done elsewhere.
    """

    text: str | None
    text_confidence: float
    digit: int | None
    digit_confidence: float
    is_digit: float
    read_seconds: float = 0
    predict_seconds: float = 0


class Reader(Protocol):
    """Reads pictures."""

    def __call__(self, file: bytes) -> Answer:
        """Read the picture, and predict its digit."""


Model = Callable[[Batch], list[Prediction]]
"""Predictions of glyphs, uint8 [k, 28, 28]."""
Find = Callable[[NDArray[np.uint8]], Peaks]
"""Peaks on a page, uint8 [h, w]."""


class LocalReader:
    """Reads in this process by the gateway's functions, in its order."""

    def __init__(self, model: Model, find: Find) -> None:
        self._recognition = recognition.Recognition(DIGITS)
        self._model, self._find = model, find

    def read(self, file: bytes, expectation: Expectation | None = None) -> Reading:
        """Read the number on the picture that is expected."""
        expecting = recognition.Recognition(DIGITS, options=Options(DEFAULTS, (), expectation))
        (reading,) = recognition.drive(expecting.read([file]), self._ask)
        assert isinstance(reading.result, Reading)
        return reading.result

    @classmethod
    def load(cls, models: Path) -> Self:
        """Return the reader of the newest versions in a models folder."""
        return cls(load_model(newest(models / "digits")), load_reader(newest(models / "reader")))

    def __call__(self, file: bytes) -> Answer:
        start = time.monotonic()
        (reading,) = recognition.drive(self._recognition.read([file]), self._ask)
        read_seconds = time.monotonic() - start
        (prediction,) = recognition.drive(self._recognition.predict([file]), self._ask)
        predict_seconds = time.monotonic() - start - read_seconds
        assert isinstance(reading.result, Reading)
        assert isinstance(prediction.result, Prediction)
        return _answer(reading.result, prediction.result, read_seconds, predict_seconds)

    def _ask(self, request: recognition.Classify | recognition.Find) -> list[Prediction] | Peaks:
        if isinstance(request, recognition.Classify):
            return self._model(request.batch)
        return self._find(request.page)


class GatewayReader:
    """Reads by a running gateway."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, file: bytes) -> Answer:
        return _answer(
            self._client.read(file),
            self._client.predict(file),
        )


def load_model(directory: Path) -> Model:
    """Load a version's SavedModel."""
    import tensorflow as tf

    model = tf.saved_model.load(str(directory))
    signature = model.signatures["images"]
    [name] = signature.structured_input_signature[1]
    version = int(directory.name)

    def predict(glyphs: Batch) -> list[Prediction]:
        outputs = signature(**{name: tf.constant(glyphs)})
        probabilities = outputs["probabilities"].numpy().astype(float)
        is_digit = outputs["is_digit"].numpy().tolist() if "is_digit" in outputs else [None] * len(glyphs)
        return [
            Prediction(
                int(row.argmax()),
                float(row.max()),
                tuple(row.tolist()),
                DIGITS.labels,
                version,
                is_digit=score,
            )
            for row, score in zip(probabilities, is_digit, strict=True)
        ]

    # The signature's function belongs to the model and holds no reference to it.
    predict.model = model  # type: ignore[attr-defined]
    return predict


def load_reader(directory: Path) -> Find:
    """Load a version's SavedModel of the reader."""
    import tensorflow as tf

    model = tf.saved_model.load(str(directory))
    signature = model.signatures["serving_default"]

    def find(page: NDArray[np.uint8]) -> Peaks:
        outputs = signature(pages=tf.constant(page[np.newaxis]))
        names = ("scores", "classes", "boxes", LINE_WEIGHTS_OUTPUT)
        return Peaks(*(outputs[name].numpy()[0] for name in names))

    # As of the model above.
    find.model = model  # type: ignore[attr-defined]
    return find


def newest(root: Path) -> Path:
    """Return the directory of the highest version below `root`."""
    return max((path for path in root.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _answer(
    reading: Reading, prediction: Prediction, read_seconds: float = 0, predict_seconds: float = 0
) -> Answer:
    text, text_confidence = None, 0.0
    if not reading.refusal:
        text, text_confidence = reading.text, reading.confidence
    digit, confidence = (None, 0.0) if prediction.refusal else (prediction.digit, prediction.confidence)
    # Families write groups of digits, whose gaps the reading keeps as spaces.
    text = text and text.replace(" ", "")
    is_digit = prediction.is_digit or 0.0
    return Answer(text, text_confidence, digit, confidence, is_digit, read_seconds, predict_seconds)
