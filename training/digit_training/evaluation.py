"""How good a model is on examples it has not seen."""

import math
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from digit_training.data import Examples
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


Labels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

_DEVIATIONS = 1.96
"""On either side of the middle, these hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Accuracy:
    """So many right of so many, which are at least one."""

    right: int
    count: int

    @property
    def share(self) -> float:
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's: where the accuracy on endless examples of this kind lies, with 95 % confidence."""
        spread = _DEVIATIONS**2 / self.count
        middle = self.share + spread / 2
        half = math.sqrt(spread * (self.share * (1 - self.share) + spread / 4))
        return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence is from `low` to `high`, and what it is on average."""

    low: float
    high: float
    confidence: float
    accuracy: Accuracy


def confusion_matrix(labels: Labels, probabilities: Probabilities) -> NDArray[np.intp]:
    """How often each digit, a row, got each answer, a column: [10, 10]."""
    return np.bincount(10 * labels.astype(np.intp) + probabilities.argmax(axis=1), minlength=100).reshape(
        10, 10
    )


def accuracy_per_digit(confusion: NDArray[np.intp]) -> dict[int, Accuracy]:
    """The accuracy on each digit that was asked for."""
    return {
        digit: Accuracy(int(answers[digit]), int(answers.sum()))
        for digit, answers in enumerate(confusion)
        if answers.any()
    }


def reliability_bins(labels: Labels, probabilities: Probabilities) -> list[Bin]:
    """The bins of the calibration error that hold any answer, by rising confidence."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_of = bins(confidence)
    return [
        Bin(
            low=index / BINS,
            high=(index + 1) / BINS,
            confidence=float(confidence[bin_of == index].mean()),
            accuracy=Accuracy(int(right[bin_of == index].sum()), int((bin_of == index).sum())),
        )
        for index in np.unique(bin_of).tolist()
    ]


def worst_mistakes(labels: Labels, probabilities: Probabilities) -> NDArray[np.intp]:
    """Which answers are wrong, the most confident first: their places."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


LIMIT = 5.0
"""The highest temperature, and the inverse of the lowest: digits that are all read right would ask for 0."""

_HALVINGS = 40


def temperature(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """The temperature at which these answers, float32 [n, 10], explain the labels [n] best.

    To divide the logits by, 1/5..5. It minimises the negative log-likelihood, which is convex in its inverse:
    the minimum is where the slope changes its sign.
    """
    # Softmax forgets a constant, so the logarithms of its answers serve as logits.
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    low, high = -math.log(LIMIT), math.log(LIMIT)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(logits, labels, math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def fold(model: keras.Model, temperature: float) -> None:
    """Divides the logits by it, in the weights of the model's last layer: Dense with a softmax."""
    last = model.layers[-1]
    last.set_weights([weights / np.float32(temperature) for weights in last.get_weights()])


def _slope(logits: NDArray[np.float64], labels: NDArray[np.uint8], sharpness: float) -> float:
    """Of the negative log-likelihood by the sharpness, the inverse of the temperature."""
    sharp = np.exp(sharpness * (logits - logits.max(axis=1, keepdims=True)))
    expected = (sharp * logits).sum(axis=1) / sharp.sum(axis=1)
    return float((expected - logits[np.arange(len(labels)), labels]).mean())
