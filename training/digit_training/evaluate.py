"""How good a model is on examples it has not seen."""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from digit_training.dataset import Examples
from digit_training.errors import ModelError

BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """`accuracy` and `calibration_error` are 0..1, `probabilities` float32 [n, 10] the model's answers."""

    accuracy: float
    calibration_error: float
    probabilities: NDArray[np.float32]


def evaluate(model: keras.Model, examples: Examples) -> Evaluation:
    """Raises ModelError where the answers are not probabilities."""
    probabilities = model.predict(examples.pixels, batch_size=500, verbose=0)
    if not np.isfinite(probabilities).all():
        raise ModelError(
            "the model's answers are not numbers: its fit diverged, and needs a lower learning rate"
        )
    if np.any(probabilities < 0) or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ModelError("the model's answers do not sum to 1: end it with a softmax")
    right = probabilities.argmax(axis=1) == examples.labels
    confidence = probabilities.max(axis=1)
    return Evaluation(float(right.mean()), calibration_error(confidence, right), probabilities)


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Expected calibration error of the top label, 0..1.

    The mean gap between confidence and accuracy over bins of equal width, weighted by the examples in each
    (Guo et al., 2017). `confidence` is [n], 0..1, `right` is [n].
    """
    gaps = np.bincount(bins(confidence), weights=confidence.astype(float) - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def bins(confidence: NDArray[np.float32]) -> NDArray[np.intp]:
    """Which of BINS bins of equal width each confidence, 0..1, falls into: [n]."""
    return np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
