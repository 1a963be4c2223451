"""Confidence that is right as often as it says: temperature scaling (Guo et al., 2017)."""

import math

import keras
import numpy as np
from numpy.typing import NDArray

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
