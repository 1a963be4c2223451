"""Readers: a model in this process, or a running gateway."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from digit_client import DIGITS, DigitClient, NoDigitError, Prediction, Reading, SeveralDigitsError, images

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """Answers to a picture; None is a refusal.

    `text` and `text_confidence` are from reading, the latter the highest of its digits; `digit` and
    `digit_confidence` from predicting one digit. The times, in seconds, and the number of candidates are 0
    where they happen elsewhere.
    """

    text: str | None
    text_confidence: float
    digit: int | None
    digit_confidence: float
    segment_time: float = 0
    read_time: float = 0
    candidates: int = 0


class Reader(Protocol):
    """Reads pictures."""

    def __call__(self, file: bytes) -> Answer:
        """Read the picture, and predict its digit."""


Model = Callable[[NDArray[np.uint8]], list[Prediction]]
"""Predictions of glyphs, uint8 [k, 28, 28]."""


class LocalReader:
    """Reads in this process by the gateway's functions, in its order."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, file: bytes) -> Answer:
        pixels = images.decode(file)
        start = time.perf_counter()
        candidates = _unless_refused(lambda: images.segment(pixels))
        segment_time = time.perf_counter() - start
        predictions = self._model(candidates.glyphs) if candidates else []
        start = time.perf_counter()
        reading = _unless_refused(lambda: images.read(candidates, predictions)) if candidates else None
        read_time = time.perf_counter() - start
        # Cascade of `predict`: first the picture as one digit, then its candidates.
        prediction = _unless_refused(lambda: self._model(images.normalise(pixels)[None])[0])
        if not prediction or not prediction.is_accepted:
            prediction = (
                _unless_refused(lambda: images.single_digit(candidates, predictions)) if candidates else None
            )
        return _answer(reading, prediction, segment_time, read_time, len(predictions))


class GatewayReader:
    """Reads by a running gateway."""

    def __init__(self, client: DigitClient) -> None:
        self._client = client

    def __call__(self, file: bytes) -> Answer:
        return _answer(
            _unless_refused(lambda: self._client.read(file)),
            _unless_refused(lambda: self._client.predict(file)),
        )


def load_model(directory: Path) -> Model:
    """Load a version's SavedModel."""
    import tensorflow as tf

    model = tf.saved_model.load(str(directory))
    signature = model.signatures["images"]
    [name] = signature.structured_input_signature[1]
    version = int(directory.name)

    def predict(glyphs: NDArray[np.uint8]) -> list[Prediction]:
        outputs = signature(**{name: tf.constant(glyphs)})
        probabilities = outputs["probabilities"].numpy().astype(float)
        is_digit = outputs["is_digit"].numpy().tolist() if "is_digit" in outputs else [None] * len(glyphs)
        return [
            Prediction(
                int(row.argmax()),
                float(row.max()) * (1.0 if score is None else score),
                tuple(row.tolist()),
                DIGITS.labels,
                version,
                score,
            )
            for row, score in zip(probabilities, is_digit, strict=True)
        ]

    # The signature's function belongs to the model and holds no reference to it.
    predict.model = model  # type: ignore[attr-defined]
    return predict


def newest(root: Path) -> Path:
    """Return the directory of the highest version below `root`."""
    return max((path for path in root.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _unless_refused(ask: Callable[[], T]) -> T | None:
    """Return the answer, or None for a picture without a digit or with several."""
    try:
        return ask()
    except (NoDigitError, SeveralDigitsError):
        return None


def _answer(
    reading: Reading | None,
    prediction: Prediction | None,
    segment_time: float = 0,
    read_time: float = 0,
    candidates: int = 0,
) -> Answer:
    text, text_confidence = None, 0.0
    if reading:
        text, text_confidence = reading.text, max(digit.confidence for digit in reading.digits)
    digit, confidence = (prediction.digit, prediction.confidence) if prediction else (None, 0.0)
    return Answer(text, text_confidence, digit, confidence, segment_time, read_time, candidates)
