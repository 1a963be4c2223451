"""Keras callbacks: best weights, deferred Ctrl-C and a progress display."""

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from digit_training.models import PROBABILITIES

MAX_EPOCHS_SHOWN = 20
"""Number of epochs in the progress display; a longer fit shows every n-th."""

Logs = dict[str, Any]


class BestWeights(keras.callbacks.EarlyStopping):  # type: ignore[misc]
    """Keeps in `best_weights` those of the epoch with the lowest validation loss, else of the last epoch.

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


class FitProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints the layers, a line for each epoch, and on a terminal a progress bar of the whole fit.

    One bar serves the consecutive fits of an ensemble's `networks`.
    """

    def __init__(self, console: Console, networks: int = 1) -> None:
        super().__init__()
        self.networks, self.network = networks, 0
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[metrics]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.fit = self.bar.add_task("fit", metrics="")

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.network += 1
        if self.network == 1:
            self.model.summary()
            self.bar.update(self.fit, total=self.networks * self.params["epochs"] * self.params["steps"])
            self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epochs_done = (self.network - 1) * self.params["epochs"] + epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        steps = self.params["steps"]
        completed = self.epochs_done * steps + min(batch + 1, steps)
        self.bar.update(self.fit, completed=completed, metrics=_format_metrics(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        number, epochs = epoch + 1, self.params["epochs"]
        if number % math.ceil(epochs / MAX_EPOCHS_SHOWN) and number < epochs:
            return
        network = f"network {self.network}/{self.networks}, " if self.networks > 1 else ""
        title = f"{network}epoch {number:>{len(str(epochs))}}/{epochs}"
        self.bar.console.print(title, _format_metrics(logs or {}))

    def close(self) -> None:
        """Stop the display and restore the terminal's cursor; also needed after an interrupted fit."""
        self.bar.stop()


def _format_metrics(logs: Logs) -> str:
    names = {"loss": "loss", "accuracy": "accuracy", "val_accuracy": "validation"}
    shown = class_logs(logs)
    return "  ".join(f"{name} {shown[key]:.4f}" for key, name in names.items() if key in shown)
