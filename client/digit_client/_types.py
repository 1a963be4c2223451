"""What the model said about an image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIGITS = 10


@dataclass(frozen=True, slots=True)
class Prediction:
    """The digit that an image shows.

    `digit` is the most probable of 0 to 9, `confidence` its probability, `probabilities` that of each of the
    ten (they sum to 1), `model_version` the version of the model that answered.
    """

    digit: int
    confidence: float
    probabilities: tuple[float, ...]
    model_version: int


def decode(probabilities: NDArray[np.float32], model_version: int) -> list[Prediction]:
    """Turn the model's output, float32 [n, 10], into n predictions.

    Raises ValueError when it isn't that: wrong shape, NaN, or rows that are no probabilities.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != DIGITS:
        raise ValueError(f"expected probabilities of shape [n, 10], got {list(probabilities.shape)}")
    # Written so that NaN fails as well, and before it or an infinity is added up, which would warn.
    is_share = (probabilities >= 0) & (probabilities < 1.001)
    if not is_share.all() or not (np.abs(probabilities.sum(axis=1) - 1) < 1e-3).all():
        raise ValueError("the model's output is no probability distribution")
    digits = probabilities.argmax(axis=1).tolist()
    return [
        Prediction(digit, row[digit], tuple(row), model_version)
        for digit, row in zip(digits, probabilities.tolist(), strict=True)
    ]
