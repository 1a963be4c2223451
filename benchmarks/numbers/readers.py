"""Readers: a model in this process, or a running gateway."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from digit_client import DIGITS, Client, Prediction, Reading, images
from digit_client._recognition import Recognition
from digit_client.tfserving.codec import Batch

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


Model = Callable[[Batch], list[Prediction]]
"""Predictions of glyphs, uint8 [k, 28, 28]."""


class LocalReader:
    """Reads in this process by the gateway's functions, in its order."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, file: bytes) -> Answer:
        pixels = images.decode(file)
        start = time.perf_counter()
        candidates = images.segment(pixels)
        segment_time = time.perf_counter() - start
        predictions = self._model(candidates.glyphs)
        start = time.perf_counter()
        reading = images.read(candidates, predictions)
        read_time = time.perf_counter() - start
        (outcome,) = Recognition(self._model, DIGITS).predict([pixels])
        assert isinstance(outcome.result, Prediction)
        return _answer(reading, outcome.result, segment_time, read_time, len(predictions))


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


def _answer(
    reading: Reading,
    prediction: Prediction,
    segment_time: float = 0,
    read_time: float = 0,
    candidates: int = 0,
) -> Answer:
    text, text_confidence = None, 0.0
    if not reading.refusal:
        text, text_confidence = reading.text, max(digit.confidence for digit in reading.digits)
    digit, confidence = (None, 0.0) if prediction.refusal else (prediction.digit, prediction.confidence)
    return Answer(text, text_confidence, digit, confidence, segment_time, read_time, candidates)
