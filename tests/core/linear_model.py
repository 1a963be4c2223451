"""Linear classifier in NumPy: a ridge regression from pixels to labels."""

import numpy as np
from numpy.typing import NDArray

from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_core.results import Prediction

_MIN_SIMILARITY = 0.7
"""Cosine similarity to a digit that two digits on one image don't reach."""


class LinearModel:
    """Ridge regression from pixels to labels, with the output `is_digit` if `with_is_digit`.

    `is_digit` is above 0.5 if the image is similar to one of the regression.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        *,
        with_is_digit: bool = False,
        task: TaskCard = DIGITS,
    ) -> None:
        self.task = task
        inputs = _with_bias(images.reshape(len(images), -1).astype(np.float32) / np.float32(255))
        self._weights = _ridge_regression(inputs, np.eye(len(task.labels), dtype=np.float32)[labels])
        self._images = _with_unit_norm(inputs[:, :-1]) if with_is_digit else None

    def classify(self, batch: NDArray[np.uint8] | NDArray[np.float32]) -> list[Prediction]:
        """Return the predictions for a batch in the task's form, of model version 1."""
        low, high = (0.0, 255.0) if batch.dtype == np.uint8 else self.task.range
        pixels = (batch.reshape(len(batch), -1).astype(np.float32) - np.float32(low)) / np.float32(high - low)
        scores = np.exp(10 * (_with_bias(pixels) @ self._weights))
        probabilities = np.asarray(scores / scores.sum(axis=1, keepdims=True), np.float32)
        is_digit = [None] * len(batch)
        if self._images is not None:
            similarity = (_with_unit_norm(pixels) @ self._images.T).max(axis=1)
            is_digit = (1 / (1 + np.exp(40 * (_MIN_SIMILARITY - similarity)))).tolist()
        return [
            Prediction(
                int(row.argmax()), float(row.max()), tuple(row.tolist()), self.task.labels, 1, is_digit=each
            )
            for row, each in zip(probabilities, is_digit, strict=True)
        ]


def _ridge_regression(inputs: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weights, float32 [inputs, targets]; by the dual form where the inputs outnumber the rows."""
    rows, columns = inputs.shape
    ridge = 10 * np.eye(min(rows, columns), dtype=np.float32)
    if rows < columns:
        return inputs.T @ np.linalg.solve(inputs @ inputs.T + ridge, targets)
    return np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets)


def _with_unit_norm(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.sqrt((pixels**2).sum(axis=1, keepdims=True))
    normalized: NDArray[np.float32] = np.asarray(pixels / np.maximum(norms, np.float32(1e-6)), np.float32)
    return normalized


def _with_bias(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hstack((pixels, np.ones((len(pixels), 1), np.float32)))
