"""Fit of the reader: a short one learns, and goes on after an interruption."""

from pathlib import Path
from typing import Any

import keras
import pytest

from digit_training.data import Examples
from digit_training.reader.fitting import Plan, fit

pytestmark = pytest.mark.slow

PLAN = Plan(epochs=3, batch_size=4, steps_per_epoch=8, glyphs=200)


class Losses(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, stop_after: int = 99) -> None:
        super().__init__()
        self.epochs: list[int] = []
        self.values: list[float] = []
        self.stop_after = stop_after

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epochs.append(epoch)
        self.values.append((logs or {})["loss"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def examples(digits: Any) -> Examples:
    return Examples(digits.images[:500], digits.labels[:500])


def test_fit_learns(examples: Examples, tmp_path: Path) -> None:
    losses = Losses()
    fit(examples, PLAN, 0, tmp_path, [losses])
    assert losses.values[-1] < losses.values[0]


def test_fit_goes_on_after_interruption(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(examples, PLAN, 0, tmp_path, [Losses(stop_after=2)])
    again = Losses()
    fit(examples, PLAN, 0, tmp_path, [again])
    assert again.epochs == [2]
