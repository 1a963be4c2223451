"""Evaluation metrics and probability calibration."""

import math
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from digit_training.data import Examples
from digit_training.errors import ModelError

Labels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

CALIBRATION_BINS = 15
MAX_TEMPERATURE = 5.0
"""Upper bound of the temperature; the lower bound is the inverse. Without wrong answers, the optimum is 0."""

_BISECTION_STEPS = 40
_Z_95 = 1.96
"""Quantile of the standard normal distribution for a two-sided confidence of 95%."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and calibration error, 0..1, and the model's probabilities float32 [n, 10]."""

    accuracy: float
    calibration_error: float
    probabilities: Probabilities


@dataclass(frozen=True)
class Accuracy:
    """Number of correct answers among `count`, which is at least 1."""

    correct: int
    count: int

    @property
    def ratio(self) -> float:
        """Observed accuracy, 0..1."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson score interval: bounds, 0..1, of the true accuracy with 95% confidence."""
        spread = _Z_95**2 / self.count
        center = self.ratio + spread / 2
        half = math.sqrt(spread * (self.ratio * (1 - self.ratio) + spread / 4))
        return max(0.0, (center - half) / (1 + spread)), min(1.0, (center + half) / (1 + spread))


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers whose confidence is between `low` and `high`, with their mean confidence and accuracy."""

    low: float
    high: float
    confidence: float
    accuracy: Accuracy


def evaluate(model: keras.Model, examples: Examples) -> Evaluation:
    """Return the model's accuracy, calibration error and probabilities on the examples.

    Raise ModelError if its outputs are not probabilities.
    """
    probabilities = model.predict(examples.pixels, batch_size=500, verbose=0)
    if not np.isfinite(probabilities).all():
        raise ModelError(
            "the model's answers are not finite numbers: its fit diverged and needs a lower learning rate"
        )
    if np.any(probabilities < 0) or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ModelError("the model's answers do not sum to 1: its last layer needs a softmax")
    correct = probabilities.argmax(axis=1) == examples.labels
    confidence = probabilities.max(axis=1)
    return Evaluation(float(correct.mean()), calibration_error(confidence, correct), probabilities)


def calibration_error(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> float:
    """Return the expected calibration error of the top label, 0..1.

    The error is the mean gap between confidence and accuracy over bins of equal width, weighted by the
    examples in each (Guo et al., 2017). `confidence` is [n], 0..1, `correct` is [n].
    """
    gaps = np.bincount(
        _bin_indices(confidence),
        weights=confidence.astype(float) - correct,
        minlength=CALIBRATION_BINS,
    )
    return float(np.abs(gaps).sum() / len(correct))


def confusion_matrix(labels: Labels, probabilities: Probabilities) -> NDArray[np.intp]:
    """Return the number of examples of each digit (row) with each answer (column): [10, 10]."""
    pairs = 10 * labels.astype(np.intp) + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=100).reshape(10, 10)


def accuracy_per_digit(confusion: NDArray[np.intp]) -> dict[int, Accuracy]:
    """Return the accuracy on each digit that has examples."""
    return {
        digit: Accuracy(int(answers[digit]), int(answers.sum()))
        for digit, answers in enumerate(confusion)
        if answers.any()
    }


def reliability_bins(labels: Labels, probabilities: Probabilities) -> list[ReliabilityBin]:
    """Return the bins of the calibration error by rising confidence, without the empty ones."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    indices = _bin_indices(confidence)
    return [
        ReliabilityBin(
            low=index / CALIBRATION_BINS,
            high=(index + 1) / CALIBRATION_BINS,
            confidence=float(confidence[indices == index].mean()),
            accuracy=Accuracy(int(correct[indices == index].sum()), int((indices == index).sum())),
        )
        for index in np.unique(indices).tolist()
    ]


def worst_mistakes(labels: Labels, probabilities: Probabilities) -> NDArray[np.intp]:
    """Return the indices of the wrong answers, the most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """Return the temperature, 1/5..5, that minimises the negative log-likelihood of the labels [n].

    Temperature scaling divides the logits by the temperature (Guo et al., 2017). The negative log-likelihood
    is convex in the inverse temperature, so that bisection on the sign of the slope finds the minimum.
    """
    # Softmax ignores a common offset of the logits, so that the logarithms of its outputs serve as logits.
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    # Bounds of the logarithm of the inverse temperature.
    low, high = -math.log(MAX_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        if _nll_slope(logits, labels, math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def fold_temperature(model: keras.Model, temperature: float) -> None:
    """Divide the weights of the model's last layer, Dense with a softmax, by the temperature."""
    last = model.layers[-1]
    last.set_weights([weights / np.float32(temperature) for weights in last.get_weights()])


def _bin_indices(confidence: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the index of each confidence's bin, 0..CALIBRATION_BINS - 1: [n]."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)


def _nll_slope(logits: NDArray[np.float64], labels: Labels, inverse_temperature: float) -> float:
    """Return the derivative of the mean negative log-likelihood with respect to the inverse temperature."""
    exponentials = np.exp(inverse_temperature * (logits - logits.max(axis=1, keepdims=True)))
    expected_logits = (exponentials * logits).sum(axis=1) / exponentials.sum(axis=1)
    return float((expected_logits - logits[np.arange(len(labels)), labels]).mean())
