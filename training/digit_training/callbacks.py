"""Keras callbacks: best weights, deferred Ctrl-C and a progress display."""

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from digit_training.models import PROBABILITIES

MAX_EPOCHS_SHOWN = 20
"""Number of epochs in the progress display; a longer fit shows every n-th."""

Logs = dict[str, Any]


class BestWeights(keras.callbacks.EarlyStopping):  # type: ignore[misc]
    """Keeps the weights of the epoch with the lowest validation loss, or without validation, of the last.

    A fit ends with these weights, and is never stopped; an interrupted fit needs `restore`.
    """

    def __init__(self) -> None:
        super().__init__("val_loss", mode="min", patience=sys.maxsize, restore_best_weights=True)

    def get_monitor_value(self, logs: Logs | None) -> float:
        """Return the loss to watch; without validation, one that is lower than every earlier one."""
        return float(class_logs(logs or {}).get("val_loss", (self.best or 0.0) - 1))

    def restore(self) -> None:
        """Set the model's weights to the kept weights."""
        self.model.set_weights(self.best_weights)


class DeferredInterrupt(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises KeyboardInterrupt at the end of the batch in which the first SIGINT arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.requested = False

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.requested:
            raise KeyboardInterrupt

    on_test_batch_end = on_train_batch_end

    def handle_sigint(self, _number: int, _frame: FrameType | None) -> None:
        """Defer the first SIGINT; raise KeyboardInterrupt on the second."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def class_logs(logs: Logs) -> Logs:
    """Return loss and accuracy of the probabilities, which Keras prefixes in a network with two outputs."""
    prefix = f"{PROBABILITIES}_"
    return {key.replace(prefix, ""): value for key, value in logs.items() if prefix in key} or logs


@contextmanager
def defer_interrupt() -> Iterator[DeferredInterrupt]:
    """Yield a callback that defers Ctrl-C to the end of the batch; for the main thread only.

    TensorFlow's threads call Python to read batches. A KeyboardInterrupt at an arbitrary
    instruction can break this reading.
    """
    callback = DeferredInterrupt()
    previous = signal.signal(signal.SIGINT, callback.handle_sigint)
    try:
        yield callback
    finally:
        signal.signal(signal.SIGINT, previous)


class FitProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints the layers, then a progress bar of the fit, and one with loss and accuracy for each epoch.

    One display serves the consecutive fits of an ensemble's `networks`. Without a terminal, it is a line for
    each epoch.
    """

    def __init__(self, console: Console, networks: int = 1) -> None:
        super().__init__()
        self.console, self.networks, self.network = console, networks, 0
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[metrics]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.fit = self.epoch = TaskID(0)
        self.done = 0
        """Number of steps in the completed epochs of all networks."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.network += 1
        if self.network == 1:
            self.model.summary()
            total = self.networks * self.params["epochs"] * self.params["steps"]
            self.fit = self.bars.add_task("fit", total=total, metrics="")
            self.bars.start()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = self.bars.add_task(self._title(epoch), total=self.params["steps"], metrics="")

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        steps = min(batch + 1, self.params["steps"])
        self.bars.update(self.epoch, completed=steps, metrics=_format_metrics(logs or {}))
        self.bars.update(self.fit, completed=self.done + steps)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.done += self.params["steps"]
        self.bars.update(self.epoch, metrics=_format_metrics(logs or {}))
        completed, epochs = epoch + 1, self.params["epochs"]
        if completed % math.ceil(epochs / MAX_EPOCHS_SHOWN) and completed < epochs:
            self.bars.remove_task(self.epoch)
        elif not self.console.is_terminal:
            self.console.print(self._title(epoch), _format_metrics(logs or {}))

    def close(self) -> None:
        """Stop the display and restore the terminal's cursor; also needed after an interrupted fit."""
        self.bars.stop()

    def _title(self, epoch: int) -> str:
        epochs = self.params["epochs"]
        title = f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"
        return title if self.networks == 1 else f"network {self.network}/{self.networks}, {title}"


def _format_metrics(logs: Logs) -> str:
    names = {"loss": "loss", "accuracy": "accuracy", "val_accuracy": "validation"}
    shown = class_logs(logs)
    return "  ".join(f"{name} {shown[key]:.4f}" for key, name in names.items() if key in shown)
