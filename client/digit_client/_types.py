"""Result types."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted digit of an image.

    `digit` is the most probable of 0 to 9 and `confidence` its probability. `probabilities` holds the
    probability of each of the ten digits; they sum to 1. `model_version` is the version of the model that
    answered.
    """

    digit: int
    confidence: float
    probabilities: tuple[float, ...]
    model_version: int
