"""A fit on the screen: the table of its layers, then on a terminal a bar for each epoch, elsewhere a line."""

import math
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

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
