"""The best of a fit's epochs."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn


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


class BetweenBatches(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises the KeyboardInterrupt that was asked for when the batch under way has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._raise_if_asked()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._raise_if_asked()

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """Handles SIGINT; who presses Ctrl-C again doesn't want to wait."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def _raise_if_asked(self) -> None:
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def between_batches() -> Iterator[BetweenBatches]:
    """For the block, in the main thread, Ctrl-C waits for the callback to be between two batches.

    TensorFlow reads a batch by calling Python from threads of its own, which an exception that comes at any
    instruction can take apart.
    """
    callback = BetweenBatches()
    before = signal.signal(signal.SIGINT, callback.ask)
    try:
        yield callback
    finally:
        signal.signal(signal.SIGINT, before)


SHOWN_EPOCHS = 20
"""A fit of more epochs than this leaves only every n-th on the screen."""


class FitDisplay(keras.callbacks.Callback):  # type: ignore[misc]
    """Shows the layers, then progress, loss and accuracy of each epoch while it runs.

    It may be told of the fits of several `networks`, one after the other.
    """

    def __init__(self, console: Console, networks: int = 1) -> None:
        super().__init__()
        self.console = console
        self.networks = networks
        self.network = 0
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self.task = TaskID(0)
        self.epoch = 0
        self.started = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.network += 1
        if self.network > 1:
            return
        self.model.summary()
        self.started = time.perf_counter()
        if self.console.is_terminal:
            self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch
        self.task = self.bar.add_task(self._title(epoch), total=self.params["steps"], figures="", left="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        done = min(batch + 1, self.params["steps"])
        self.bar.update(self.task, completed=done, figures=_figures(logs or {}), left=self._left(done))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.update(self.task, figures=_figures(logs or {}), left="")
        if not self._stays(epoch):
            self.bar.remove_task(self.task)
        elif not self.console.is_terminal:
            self.console.print(self._title(epoch), _figures(logs or {}))

    def close(self) -> None:
        """Gives the terminal its cursor back, also where the fit was interrupted."""
        if self.console.is_terminal:
            self.bar.stop()

    def _title(self, epoch: int) -> str:
        epochs = self.params["epochs"]
        title = f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"
        return title if self.networks == 1 else f"network {self.network}/{self.networks}, {title}"

    def _left(self, done: int) -> str:
        """How long the whole fit will still take at the pace so far."""
        steps, epochs = self.params["steps"], self.params["epochs"]
        share = (self.network - 1 + (self.epoch + done / steps) / epochs) / self.networks
        seconds = round((time.perf_counter() - self.started) * (1 / share - 1))
        return f"{seconds // 60}:{seconds % 60:02} left"

    def _stays(self, epoch: int) -> bool:
        done, epochs = epoch + 1, int(self.params["epochs"])
        return done % math.ceil(epochs / SHOWN_EPOCHS) == 0 or done == epochs


def _figures(logs: dict[str, Any]) -> str:
    names = {"loss": "loss", "accuracy": "accuracy", "val_accuracy": "validation"}
    return "  ".join(f"{name} {logs[key]:.4f}" for key, name in names.items() if key in logs)
