"""What the answers to a test set come to: for each digit, for each confidence, and the worst of them.

Pure: labels uint8 [n], 0..9, and probabilities float32 [n, 10].
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from digit_training.evaluate import BINS, bins

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


def confusion(labels: Labels, probabilities: Probabilities) -> NDArray[np.intp]:
    """How often each digit, a row, got each answer, a column: [10, 10]."""
    return np.bincount(10 * labels.astype(np.intp) + probabilities.argmax(axis=1), minlength=100).reshape(
        10, 10
    )


def per_digit(confusion: NDArray[np.intp]) -> dict[int, Accuracy]:
    """The accuracy on each digit that was asked for."""
    return {
        digit: Accuracy(int(answers[digit]), int(answers.sum()))
        for digit, answers in enumerate(confusion)
        if answers.any()
    }


def reliability(labels: Labels, probabilities: Probabilities) -> list[Bin]:
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


def mistakes(labels: Labels, probabilities: Probabilities) -> NDArray[np.intp]:
    """Which answers are wrong, the most confident first: their places."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
