"""A fit on the screen: the table of its layers, then on a terminal a bar for each epoch, elsewhere a line."""

import math
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

SHOWN_EPOCHS = 20
"""A fit of more epochs than this leaves only every n-th on the screen."""


class FitDisplay(keras.callbacks.Callback):  # type: ignore[misc]
    """Shows the layers, then step, loss and accuracy of each epoch while it runs."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self.task = TaskID(0)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.model.summary()
        if self.console.is_terminal:
            self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.task = self.bar.add_task(self._title(epoch), total=self.params["steps"], figures="")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.update(
            self.task, completed=min(batch + 1, self.params["steps"]), figures=_figures(logs or {})
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.update(self.task, figures=_figures(logs or {}))
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
        return f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}"

    def _stays(self, epoch: int) -> bool:
        done, epochs = epoch + 1, int(self.params["epochs"])
        return done % math.ceil(epochs / SHOWN_EPOCHS) == 0 or done == epochs


def _figures(logs: dict[str, Any]) -> str:
    names = {"loss": "loss", "accuracy": "accuracy", "val_accuracy": "validation"}
    return "  ".join(f"{name} {logs[key]:.4f}" for key, name in names.items() if key in logs)
