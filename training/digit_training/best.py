"""The best of a fit's epochs."""

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


class BestEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the weights of the epoch with the lowest loss on the held-out examples; without any, of the last.

    `epoch` counts from 1 and is 0 before the first has ended; `ended` is how many have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self.ended = 0
        self.loss = math.inf
        self.weights: list[NDArray[np.float32]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.ended = epoch + 1
        loss = (logs or {}).get("val_loss")
        if loss is None or loss < self.loss or not self.weights:
            self.epoch = self.ended
            self.loss = math.inf if loss is None else loss
            self.weights = self.model.get_weights()

    def restore(self) -> None:
        """Gives the model the weights that were kept."""
        self.model.set_weights(self.weights)
