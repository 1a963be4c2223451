"""Keras callbacks and display of a fit: best weights, deferred Ctrl-C, verbosity."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from digit_training.models import PROBABILITIES

Logs = dict[str, Any]


class BestWeights(keras.callbacks.EarlyStopping):  # type: ignore[misc]
    """Keeps in `best_weights` the weights of the epoch with the lowest validation loss, or of the last epoch.

    A fit ends with these weights, and is never stopped; an interrupted fit has to set them.
    """

    def __init__(self) -> None:
        super().__init__("val_loss", mode="min", patience=sys.maxsize, restore_best_weights=True)

    def get_monitor_value(self, logs: Logs | None) -> float:
        """Return the loss to watch; without validation, one that is lower than every earlier one."""
        return float(class_logs(logs or {}).get("val_loss", (self.best or 0.0) - 1))


def class_logs(logs: Logs) -> Logs:
    """Return loss and accuracy of the probabilities, which Keras prefixes in a network with two outputs."""
    prefix = f"{PROBABILITIES}_"
    return {key.replace(prefix, ""): value for key, value in logs.items() if prefix in key} or logs


@contextmanager
def defer_interrupt() -> Iterator[keras.callbacks.Callback]:
    """Yield a callback that defers Ctrl-C to the end of the batch; for the main thread only.

    The second Ctrl-C interrupts at once. TensorFlow's threads call Python to read batches. A
    KeyboardInterrupt at an arbitrary instruction can break this reading.
    """
    is_requested = False

    def handle_sigint(*_: object) -> None:
        nonlocal is_requested
        if is_requested:
            raise KeyboardInterrupt
        is_requested = True

    def end_batch(batch: int, logs: Logs | None = None) -> None:  # noqa: ARG001
        if is_requested:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, handle_sigint)
    try:
        yield keras.callbacks.LambdaCallback(on_train_batch_end=end_batch, on_test_batch_end=end_batch)
    finally:
        signal.signal(signal.SIGINT, previous)


def verbosity() -> int:
    """Return Keras's level of a progress bar on a terminal, otherwise of a line for each epoch."""
    return 1 if sys.stdout.isatty() else 2
