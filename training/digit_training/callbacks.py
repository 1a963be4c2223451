"""Keras callbacks: best weights, deferred Ctrl-C and a progress display."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from digit_training.models import PROBABILITIES

MAX_EPOCHS_SHOWN = 20
"""Number of epochs in the progress display; a longer fit shows every n-th."""

Logs = dict[str, Any]


class BestWeights(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the weights of the epoch with the lowest validation loss, or without validation, of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        """Epoch of the kept weights, from 1; 0 before the first epoch has ended."""
        self.completed = 0
        """Number of completed epochs."""
        self.loss = math.inf
        self.weights: list[NDArray[np.float32]] = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.completed = epoch + 1
        loss = class_logs(logs or {}).get("val_loss")
        if loss is None or loss < self.loss or not self.weights:
            self.epoch = self.completed
            self.loss = math.inf if loss is None else loss
            self.weights = self.model.get_weights()

    def restore(self) -> None:
        """Set the model's weights to the kept weights."""
        self.model.set_weights(self.weights)


class DeferredInterrupt(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises KeyboardInterrupt at the end of the batch in which the first SIGINT arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.requested = False

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._raise_if_requested()

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._raise_if_requested()

    def handle_sigint(self, _number: int, _frame: FrameType | None) -> None:
        """Defer the first SIGINT; raise KeyboardInterrupt on the second."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def _raise_if_requested(self) -> None:
        if self.requested:
            raise KeyboardInterrupt


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
    """Prints the layers, then a progress bar with loss and accuracy for each epoch.

    One display serves the consecutive fits of an ensemble's `networks`.
    """

    def __init__(
        self, console: Console, networks: int = 1, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__()
        self.console = console
        self.clock = clock
        self.networks = networks
        self.network = 0
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[metrics]}"),
            TextColumn("{task.fields[time_left]}"),
            console=console,
        )
        self.task = TaskID(0)
        self.epoch = 0
        self.started = 0.0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.network += 1
        if self.network > 1:
            return
        self.model.summary()
        self.started = self.clock()
        if self.console.is_terminal:
            self.bars.start()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch
        self.task = self.bars.add_task(
            self._title(epoch), total=self.params["steps"], metrics="", time_left=""
        )

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        steps_done = min(batch + 1, self.params["steps"])
        self.bars.update(
            self.task,
            completed=steps_done,
            metrics=_format_metrics(logs or {}),
            time_left=self._time_left(steps_done),
        )

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.bars.update(self.task, metrics=_format_metrics(logs or {}), time_left="")
        if not self._is_shown(epoch):
            self.bars.remove_task(self.task)
        elif not self.console.is_terminal:
            self.console.print(self._title(epoch), _format_metrics(logs or {}))

    def close(self) -> None:
        """Stop the display and restore the terminal's cursor; also needed after an interrupted fit."""
        if self.console.is_terminal:
            self.bars.stop()

    def _title(self, epoch: int) -> str:
        epochs = self.params["epochs"]
        title = f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"
        return title if self.networks == 1 else f"network {self.network}/{self.networks}, {title}"

    def _time_left(self, steps_done: int) -> str:
        """Return the time left for all networks, extrapolated from the average pace."""
        steps, epochs = self.params["steps"], self.params["epochs"]
        fraction = (self.network - 1 + (self.epoch + steps_done / steps) / epochs) / self.networks
        seconds = round((self.clock() - self.started) * (1 / fraction - 1))
        return f"{seconds // 60}:{seconds % 60:02} left"

    def _is_shown(self, epoch: int) -> bool:
        completed, epochs = epoch + 1, int(self.params["epochs"])
        return completed % math.ceil(epochs / MAX_EPOCHS_SHOWN) == 0 or completed == epochs


def _format_metrics(logs: Logs) -> str:
    names = {"loss": "loss", "accuracy": "accuracy", "val_accuracy": "validation"}
    shown = class_logs(logs)
    return "  ".join(f"{name} {shown[key]:.4f}" for key, name in names.items() if key in shown)
