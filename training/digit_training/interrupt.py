"""Ctrl-C between two batches of a fit, never within one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import keras


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
